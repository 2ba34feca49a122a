// fp16 to float, for checks.
#pragma once

#include <cmath>
#include <cstdint>

namespace ark {

inline float half_to_float(uint16_t bits) {
  int exponent = bits >> 10 & 31;
  auto mantissa = static_cast<float>(bits & 1023);
  float value =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(mantissa + 1024.0f, exponent - 25);
  if (exponent == 31) value = mantissa == 0 ? INFINITY : NAN;
  return bits & 0x8000 ? -value : value;
}

}  // namespace ark
