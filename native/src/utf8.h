// One decoder for UTF-8, used by the JSON reader and the detokenizer.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ark {

// What stands at the front of a byte string.
struct Utf8Step {
  enum Kind { character, invalid, incomplete } kind;
  size_t
      bytes;  // the character's length; of an invalid or incomplete sequence, its valid part (>= 1)
};
// Overlong forms, surrogates and values above U+10FFFF are invalid. size must be at least 1.
Utf8Step utf8_step(const unsigned char* data, size_t size);
bool utf8_valid(const char* data, size_t size);

}  // namespace ark
