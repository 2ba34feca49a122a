#include "error.h"

namespace ark {

void fail(ark_status status, const std::string& found, const std::string& expected,
          const std::string& remedy) {
  std::string text = found;
  if (!expected.empty()) text += "; expected " + expected;
  if (!remedy.empty()) text += "; " + remedy;
  throw Error(status, text);
}

std::string quote(const std::string& text) {
  constexpr size_t kLongest = 120;
  std::string out = "'";
  for (char c : text.substr(0, kLongest)) {
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return out + (text.size() > kLongest ? "…'" : "'");
}

bool checked_add(int64_t a, int64_t b, int64_t* sum) {
  return a >= 0 && b >= 0 && !__builtin_add_overflow(a, b, sum);
}

bool checked_multiply(int64_t a, int64_t b, int64_t* product) {
  return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, product);
}

}  // namespace ark
