#include "vocabulary.h"

#include <utility>

#include "error.h"

namespace ark {

uint32_t Vocabulary::word(size_t index) const {
  const auto* p = reinterpret_cast<const unsigned char*>(file_.data()) + 4 * index;
  return uint32_t{p[0]} | uint32_t{p[1]} << 8 | uint32_t{p[2]} << 16 | uint32_t{p[3]} << 24;
}

Vocabulary::Vocabulary(MappedFile file) : file_(std::move(file)) {
  auto refuse = [](const char* found, const char* expected) {
    fail(ARK_INVALID_BUNDLE, std::string("vocabulary.bin: ") + found, expected,
         "compile the bundle again");
  };
  if (file_.size() < 8) refuse("fewer than 8 bytes", "a count and offsets");
  count_ = word(0);
  if (uint64_t{count_} + 2 > file_.size() / 4) refuse("offsets past the end", "count + 1 offsets");
  text_ = 4 * (size_t{count_} + 2);
  if (word(1) != 0) refuse("a first offset other than 0", "0");
  for (size_t i = 1; i <= count_; i++) {
    if (word(i + 1) < word(i)) refuse("offsets that go back", "ascending offsets");
  }
  if (word(size_t{count_} + 1) != file_.size() - text_) {
    refuse("a last offset that is not the end", "the end of the file");
  }
}

std::string_view Vocabulary::bytes(int32_t token) const {
  if (token < 0 || static_cast<uint32_t>(token) >= count_) return {};
  size_t index = static_cast<size_t>(token) + 1;
  return {file_.data() + text_ + word(index), word(index + 1) - word(index)};
}

}  // namespace ark
