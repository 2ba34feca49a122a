// IEEE half precision by integer arithmetic, exact, as GPUs have it: nearest, ties to even.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace cuda_on_cpu {

inline float decode_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
  uint32_t bits;
  if (exponent == 0) {
    const float small = static_cast<float>(fraction) * 0x1p-24f;
    std::memcpy(&bits, &small, 4);
  } else {
    bits = (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
  }
  bits |= sign;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline float to_float(uint16_t half) {
  static const std::vector<float> table = [] {
    std::vector<float> all(1 << 16);
    for (uint32_t i = 0; i < all.size(); ++i) all[i] = decode_half(static_cast<uint16_t>(i));
    return all;
  }();
  return table[half];
}

/// From double, so that results of two operations (fma) are rounded once.
inline uint16_t to_half(double value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double size = std::fabs(value);
  if (std::isnan(value)) return 0x7FFF;
  if (size >= 65520) return sign | 0x7C00;
  if (size < 0x1p-14) return sign | static_cast<uint16_t>(std::nearbyint(size * 0x1p24));
  int power;
  std::frexp(size, &power);  // size = f * 2^power, f in [0.5, 1)
  const auto steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(size, 11 - power)));
  // A fraction rounded up to 2048 steps carries into the exponent by itself.
  return static_cast<uint16_t>(sign | (((power + 14) << 10) + (steps - 1024)));
}

inline float low(uint32_t word) { return to_float(static_cast<uint16_t>(word)); }
inline float high(uint32_t word) { return to_float(static_cast<uint16_t>(word >> 16)); }
inline uint32_t both(double first, double second) {
  return to_half(first) | static_cast<uint32_t>(to_half(second)) << 16;
}

}  // namespace cuda_on_cpu
