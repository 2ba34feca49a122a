#include "json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <locale>
#include <sstream>

#include "error.h"
#include "utf8.h"

namespace ark {

class JsonParser {
 public:
  JsonParser(const std::string& what, const char* text, size_t size)
      : what_(what), start_(text), at_(text), end_(text + size) {}

  Json document() {
    Json value = parse_value(0);
    skip_space();
    if (at_ != end_) refuse("text after the end of the value", "one JSON value");
    return value;
  }

 private:
  static constexpr int kDepth = 64;

  [[noreturn]] void refuse(const std::string& found, const std::string& expected) const {
    fail(ARK_INVALID_BUNDLE, what_ + ": byte " + std::to_string(at_ - start_) + ": " + found,
         expected, "compile the bundle again");
  }

  void skip_space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) at_++;
  }

  bool take(char c) {
    skip_space();
    if (at_ == end_ || *at_ != c) return false;
    at_++;
    return true;
  }

  bool take_word(const char* word) {
    size_t size = std::strlen(word);
    if (static_cast<size_t>(end_ - at_) < size || std::memcmp(at_, word, size) != 0) return false;
    at_ += size;
    return true;
  }

  Json parse_value(int depth) {
    if (depth > kDepth) refuse("nesting deeper than 64", "a shallower value");
    skip_space();
    Json value;
    if (at_ == end_) {
      refuse("the text ends early", "a value");
    } else if (*at_ == '{') {
      parse_object(depth, &value);
    } else if (*at_ == '[') {
      parse_array(depth, &value);
    } else if (*at_ == '"') {
      value.type_ = Json::Type::string;
      value.text_ = parse_string();
    } else if (take_word("true")) {
      value.type_ = Json::Type::boolean;
      value.number_ = 1;
    } else if (take_word("false")) {
      value.type_ = Json::Type::boolean;
    } else if (!take_word("null")) {
      value.type_ = Json::Type::number;
      value.number_ = parse_number();
    }
    return value;
  }

  void parse_array(int depth, Json* value) {
    value->type_ = Json::Type::array;
    at_++;
    if (take(']')) return;
    do {
      value->items_.push_back(parse_value(depth + 1));
    } while (take(','));
    if (!take(']')) refuse("an array is not closed", "',' or ']'");
  }

  void parse_object(int depth, Json* value) {
    value->type_ = Json::Type::object;
    at_++;
    if (take('}')) return;
    do {
      skip_space();
      if (at_ == end_ || *at_ != '"') refuse("no key", "a string");
      value->keys_.push_back(parse_string());
      if (!take(':')) refuse("no ':' after a key", "':'");
      value->items_.push_back(parse_value(depth + 1));
    } while (take(','));
    if (!take('}')) refuse("an object is not closed", "',' or '}'");
    std::vector<const std::string*> sorted;
    for (const std::string& key : value->keys_) sorted.push_back(&key);
    std::sort(sorted.begin(), sorted.end(), [](auto a, auto b) { return *a < *b; });
    auto same =
        std::adjacent_find(sorted.begin(), sorted.end(), [](auto a, auto b) { return *a == *b; });
    if (same != sorted.end()) refuse("duplicate key " + quote(**same), "each key once");
  }

  uint32_t parse_hex() {
    uint32_t code = 0;
    for (int i = 0; i < 4; i++, at_++) {
      if (at_ == end_) refuse("an escape ends early", "four hexadecimal digits");
      char c = *at_;
      uint32_t digit = c >= '0' && c <= '9'   ? c - '0'
                       : c >= 'a' && c <= 'f' ? c - 'a' + 10
                       : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                              : 16;
      if (digit > 15) refuse("a bad escape", "four hexadecimal digits");
      code = code * 16 + digit;
    }
    return code;
  }

  void append_code(uint32_t code, std::string* out) {
    if (code < 0x80) {
      *out += static_cast<char>(code);
    } else if (code < 0x800) {
      *out += static_cast<char>(0xC0 | code >> 6);
      *out += static_cast<char>(0x80 | (code & 63));
    } else if (code < 0x10000) {
      *out += static_cast<char>(0xE0 | code >> 12);
      *out += static_cast<char>(0x80 | (code >> 6 & 63));
      *out += static_cast<char>(0x80 | (code & 63));
    } else {
      *out += static_cast<char>(0xF0 | code >> 18);
      *out += static_cast<char>(0x80 | (code >> 12 & 63));
      *out += static_cast<char>(0x80 | (code >> 6 & 63));
      *out += static_cast<char>(0x80 | (code & 63));
    }
  }

  void parse_escape(std::string* out) {
    if (at_ == end_) refuse("a string is not closed", "'\"'");
    static const char kFrom[] = "\"\\/bfnrt";
    static const char kTo[] = "\"\\/\b\f\n\r\t";
    char c = *at_++;
    if (c == 'u') {
      uint32_t code = parse_hex();
      if (code >= 0xD800 && code < 0xDC00) {
        if (!take_word("\\u")) refuse("half of a surrogate pair", "both halves");
        uint32_t low = parse_hex();
        if (low < 0xDC00 || low > 0xDFFF) refuse("half of a surrogate pair", "both halves");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      } else if (code >= 0xDC00 && code < 0xE000) {
        refuse("half of a surrogate pair", "both halves");
      }
      append_code(code, out);
      return;
    }
    const char* found = c ? std::strchr(kFrom, c) : nullptr;
    if (!found) refuse("an unknown escape", "one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u");
    *out += kTo[found - kFrom];
  }

  std::string parse_string() {
    std::string out;
    at_++;
    for (;;) {
      if (at_ == end_) refuse("a string is not closed", "'\"'");
      unsigned char c = static_cast<unsigned char>(*at_);
      if (c == '"') break;
      if (c < 0x20) refuse("a control character in a string", "an escape");
      if (c == '\\') {
        at_++;
        parse_escape(&out);
        continue;
      }
      Utf8Step step =
          utf8_step(reinterpret_cast<const unsigned char*>(at_), static_cast<size_t>(end_ - at_));
      if (step.kind != Utf8Step::character) refuse("invalid UTF-8", "UTF-8");
      out.append(at_, step.bytes);
      at_ += step.bytes;
    }
    at_++;
    return out;
  }

  void digits() {
    if (at_ == end_ || *at_ < '0' || *at_ > '9') refuse("no value", "a JSON value");
    while (at_ != end_ && *at_ >= '0' && *at_ <= '9') at_++;
  }

  double parse_number() {
    const char* first = at_;
    if (*at_ == '-') at_++;
    if (at_ != end_ && *at_ == '0') {
      at_++;  // no digits may follow a leading zero
    } else {
      digits();
    }
    if (at_ != end_ && *at_ == '.') {
      at_++;
      digits();
    }
    if (at_ != end_ && (*at_ == 'e' || *at_ == 'E')) {
      at_++;
      if (at_ != end_ && (*at_ == '+' || *at_ == '-')) at_++;
      digits();
    }
    double value = 0;
    if (!convert(first, at_, &value) || !std::isfinite(value)) {
      refuse("a number outside the range of a double", "a smaller one");
    }
    return value;
  }

  // Not strtod: it reads the decimal point of the process's locale.
  static bool convert(const char* first, const char* last, double* value) {
#if defined(__cpp_lib_to_chars)
    auto result = std::from_chars(first, last, *value);
    return result.ec == std::errc() && result.ptr == last;
#else
    std::istringstream stream(std::string(first, last));
    stream.imbue(std::locale::classic());
    return static_cast<bool>(stream >> *value);
#endif
  }

  const std::string& what_;
  const char* start_;
  const char* at_;
  const char* end_;
};

Json Json::parse(const std::string& what, const char* text, size_t size, size_t limit) {
  if (size > limit) {
    fail(ARK_INVALID_BUNDLE, what + " has " + std::to_string(size) + " bytes",
         "at most " + std::to_string(limit), "");
  }
  return JsonParser(what, text, size).document();
}

const Json* Json::find(const std::string& key) const {
  for (size_t i = 0; i < keys_.size(); i++) {
    if (keys_[i] == key) return &items_[i];
  }
  return nullptr;
}

void JsonView::refuse(const std::string& found, const std::string& expected) const {
  fail(ARK_INVALID_BUNDLE, place_ + ": " + found, expected, "compile the bundle again");
}

JsonView JsonView::at(const char* key) const {
  object_size();
  const Json* value = value_->find(key);
  if (!value) refuse("no \"" + std::string(key) + "\"", "that key");
  return JsonView(*value, place_ + (place_.find(": ") == std::string::npos ? ": " : ".") + key);
}

JsonView JsonView::item(size_t index) const {
  return JsonView(value_->items()[index], place_ + "[" + std::to_string(index) + "]");
}

JsonView JsonView::member(size_t index) const {
  return JsonView(value_->items()[index], place_ + "[" + quote(key(index)) + "]");
}

size_t JsonView::array_size() const {
  if (!is(Json::Type::array)) refuse("not an array", "an array");
  return value_->items().size();
}

size_t JsonView::object_size() const {
  if (!is(Json::Type::object)) refuse("not an object", "an object");
  return value_->items().size();
}

const std::string& JsonView::string() const {
  if (!is(Json::Type::string)) refuse("not a string", "a string");
  return value_->text();
}

double JsonView::real() const {
  if (!is(Json::Type::number)) refuse("not a number", "a number");
  return value_->real();
}

int64_t JsonView::integer(int64_t low, int64_t high) const {
  constexpr double kExact = 9007199254740992.0;  // doubles hold every integer up to 2^53
  double value = real();
  if (value != std::floor(value) || std::fabs(value) > kExact ||
      static_cast<int64_t>(value) < low || static_cast<int64_t>(value) > high) {
    std::ostringstream found;
    found.imbue(std::locale::classic());
    found << value;
    refuse(found.str(), "an integer from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return static_cast<int64_t>(value);
}

}  // namespace ark
