#include "utf8.h"

namespace ark {

Utf8Step utf8_step(const unsigned char* data, size_t size) {
  unsigned char lead = data[0];
  if (lead < 0x80) return {Utf8Step::character, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Step::invalid, 1};
  size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and values that are too large.
  unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < length; i++) {
    if (i >= size) return {Utf8Step::incomplete, i};
    if (data[i] < low || data[i] > high) return {Utf8Step::invalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Step::character, length};
}

bool utf8_valid(const char* data, size_t size) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(data);
  for (size_t at = 0; at < size;) {
    Utf8Step step = utf8_step(bytes + at, size - at);
    if (step.kind != Utf8Step::character) return false;
    at += step.bytes;
  }
  return true;
}

}  // namespace ark
