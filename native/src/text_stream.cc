#include "text_stream.h"

#include <algorithm>
#include <utility>

#include "error.h"
#include "utf8.h"

namespace ark {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

TextStream::TextStream(std::vector<std::string> stop_strings) : stops_(std::move(stop_strings)) {
  for (const std::string& stop : stops_) {
    if (stop.empty() || !utf8_valid(stop.data(), stop.size())) {
      fail(ARK_INVALID_ARGUMENT, "the stop string " + quote(stop), "text in UTF-8, not empty", "");
    }
  }
}

bool TextStream::push(std::string_view bytes, std::string* text) {
  bytes_ += bytes;
  decode(false);
  return release(false, text);
}

bool TextStream::flush(std::string* text) {
  decode(true);
  return release(true, text);
}

// Moves complete characters from bytes_ to held_; every invalid sequence becomes one U+FFFD.
void TextStream::decode(bool end) {
  const auto* data = reinterpret_cast<const unsigned char*>(bytes_.data());
  size_t at = 0;
  while (at < bytes_.size()) {
    Utf8Step step = utf8_step(data + at, bytes_.size() - at);
    if (step.kind == Utf8Step::incomplete && !end) break;
    if (step.kind == Utf8Step::character) {
      held_.append(bytes_, at, step.bytes);
    } else {
      held_ += kReplacement;
    }
    at += step.bytes;
  }
  bytes_.erase(0, at);
}

bool TextStream::release(bool end, std::string* text) {
  size_t stop_at = std::string::npos;
  for (const std::string& stop : stops_) stop_at = std::min(stop_at, held_.find(stop));
  if (stop_at != std::string::npos) {
    text->append(held_, 0, stop_at);
    held_.clear();
    bytes_.clear();
    return true;
  }
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    size_t longest = end ? 0 : std::min(stop.size() - 1, held_.size());
    while (longest > keep &&
           held_.compare(held_.size() - longest, longest, stop, 0, longest) != 0) {
      longest--;
    }
    keep = std::max(keep, longest);
  }
  text->append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return false;
}

}  // namespace ark
