// The portable variant of simd.h: plain loops over 16 lanes.
#pragma once

#include "simd.h"

ARK_KERNEL_BEGIN

constexpr int kRows = 2;     // activation rows per tile of a matrix product
constexpr int kVectors = 1;  // vectors per row in a tile of attention
constexpr int kDotLimit = 1 << 20;
constexpr int kI8Bias = 0;  // dot_i8 returns the product with codes + kI8Bias

struct V {
  float v[16];
};
struct I {
  int32_t v[16];
};
struct B {
  int8_t v[64];
};
using D = I;

template <typename T, typename F>
ARK_INLINE T each(F f) {
  T r;
  for (int i = 0; i < 16; i++) r.v[i] = f(i);
  return r;
}
ARK_INLINE uint32_t bits_of(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}
ARK_INLINE float float_of(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}

ARK_INLINE V zero() { return V{}; }
ARK_INLINE I izero() { return I{}; }
ARK_INLINE V set(float f) {
  return each<V>([=](int) { return f; });
}
ARK_INLINE I iset(int32_t n) {
  return each<I>([=](int) { return n; });
}
ARK_INLINE V load(const float* p) {
  V r;
  memcpy(r.v, p, sizeof(r.v));
  return r;
}
ARK_INLINE void store(float* p, V v) { memcpy(p, v.v, sizeof(v.v)); }

ARK_INLINE float half_to_float(uint16_t h) {
  uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  uint32_t rest = h & 0x7fff;
  if (rest >= 0x7c00) return float_of(sign | 0x7f800000 | (rest & 0x3ff) << 13);
  // Scaling by 2^112 moves the exponent and makes subnormal halves right at once.
  float scaled = float_of(rest << 13) * float_of(0x77800000);
  return float_of(sign | bits_of(scaled));
}
ARK_INLINE uint16_t float_to_half(float f) {
  uint32_t u = bits_of(f);
  uint16_t sign = static_cast<uint16_t>(u >> 16 & 0x8000);
  u &= 0x7fffffff;
  if (u > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (u >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (u < 0x38800000) {
    // Adding 0.5 leaves the subnormal's bits, rounded to even, at the end of the mantissa.
    float shifted = float_of(u) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_of(shifted) - 0x3f000000));
  }
  uint32_t rounded = u + 0xfff + (u >> 13 & 1);
  return static_cast<uint16_t>(sign | (rounded - 0x38000000) >> 13);
}
ARK_INLINE V load_half(const uint16_t* p) {
  return each<V>([=](int i) { return half_to_float(p[i]); });
}
ARK_INLINE void store_half(uint16_t* p, V v) {
  for (int i = 0; i < 16; i++) p[i] = float_to_half(v.v[i]);
}
ARK_INLINE V load_bfloat(const uint16_t* p) {
  return each<V>([=](int i) { return float_of(static_cast<uint32_t>(p[i]) << 16); });
}
ARK_INLINE I load_u8(const uint8_t* p) {
  return each<I>([=](int i) { return static_cast<int32_t>(p[i]); });
}
ARK_INLINE I load_i8(const int8_t* p) {
  return each<I>([=](int i) { return static_cast<int32_t>(p[i]); });
}
// Lanes must lie in [-128, 127].
ARK_INLINE void store_i8(int8_t* p, I v) {
  for (int i = 0; i < 16; i++) p[i] = static_cast<int8_t>(v.v[i]);
}

ARK_INLINE V add(V a, V b) {
  return each<V>([&](int i) { return a.v[i] + b.v[i]; });
}
ARK_INLINE V sub(V a, V b) {
  return each<V>([&](int i) { return a.v[i] - b.v[i]; });
}
ARK_INLINE V mul(V a, V b) {
  return each<V>([&](int i) { return a.v[i] * b.v[i]; });
}
ARK_INLINE V div(V a, V b) {
  return each<V>([&](int i) { return a.v[i] / b.v[i]; });
}
ARK_INLINE V fma(V a, V b, V c) {
  return each<V>([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
ARK_INLINE V max(V a, V b) {
  return each<V>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
ARK_INLINE V min(V a, V b) {
  return each<V>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
ARK_INLINE V abs(V a) {
  return each<V>([&](int i) { return a.v[i] < 0 ? -a.v[i] : a.v[i]; });
}
ARK_INLINE float sum(V a) {
  for (int n = 8; n > 0; n /= 2) {
    for (int i = 0; i < n; i++) a.v[i] += a.v[i + n];
  }
  return a.v[0];
}
ARK_INLINE float largest(V a) {
  for (int n = 8; n > 0; n /= 2) {
    for (int i = 0; i < n; i++) a.v[i] = a.v[i] > a.v[i + n] ? a.v[i] : a.v[i + n];
  }
  return a.v[0];
}
// Lane i of v where bit i is set, else of other.
ARK_INLINE V select(uint32_t bits, V v, V other) {
  return each<V>([&](int i) { return bits >> i & 1 ? v.v[i] : other.v[i]; });
}
// To the nearest, halves to even. Adding 1.5 * 2^23 leaves the integer in the low bits; lanes
// beyond 2^22 are clamped, because their conversion would be undefined.
ARK_INLINE I round_to_int(V a) {
  return each<I>([&](int i) {
    float v = a.v[i] < 4194303.0f ? a.v[i] : 4194303.0f;
    v = v > -4194303.0f ? v : -4194303.0f;
    return static_cast<int32_t>(bits_of(v + 12582912.0f)) - 0x4b400000;
  });
}
ARK_INLINE V to_float(I a) {
  return each<V>([&](int i) { return static_cast<float>(a.v[i]); });
}
ARK_INLINE I as_int(V a) {
  return each<I>([&](int i) { return static_cast<int32_t>(bits_of(a.v[i])); });
}
ARK_INLINE V as_float(I a) {
  return each<V>([&](int i) { return float_of(static_cast<uint32_t>(a.v[i])); });
}
// Whole numbers wrap around, as in the vector registers of the other sets.
ARK_INLINE int32_t wrapped(uint32_t value) { return static_cast<int32_t>(value); }
ARK_INLINE uint32_t unsigned_of(int32_t value) { return static_cast<uint32_t>(value); }
ARK_INLINE I add(I a, I b) {
  return each<I>([&](int i) { return wrapped(unsigned_of(a.v[i]) + unsigned_of(b.v[i])); });
}
ARK_INLINE I sub(I a, I b) {
  return each<I>([&](int i) { return wrapped(unsigned_of(a.v[i]) - unsigned_of(b.v[i])); });
}
ARK_INLINE I mul(I a, I b) {
  return each<I>([&](int i) { return wrapped(unsigned_of(a.v[i]) * unsigned_of(b.v[i])); });
}
ARK_INLINE int32_t sum(I a) {
  int32_t total = 0;
  for (int i = 0; i < 16; i++) total += a.v[i];
  return total;
}
ARK_INLINE I bits_and(I a, int32_t mask) {
  return each<I>([&](int i) { return a.v[i] & mask; });
}
template <int N>
ARK_INLINE I shl(I a) {
  return each<I>([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) << N); });
}
template <int N>
ARK_INLINE I shr(I a) {
  return each<I>([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) >> N); });
}
template <int N>
ARK_INLINE I sar(I a) {
  return each<I>([&](int i) { return a.v[i] >> N; });
}
ARK_INLINE I load_words(const void* p) {
  I r;
  memcpy(r.v, p, sizeof(r.v));
  return r;
}

ARK_INLINE B load_bytes(const void* p) {
  B r;
  memcpy(r.v, p, sizeof(r.v));
  return r;
}
ARK_INLINE void unpack_u4(const uint8_t* p, B* low, B* high) {
  for (int i = 0; i < 64; i++) {
    low->v[i] = static_cast<int8_t>(p[i] & 15);
    high->v[i] = static_cast<int8_t>(p[i] >> 4);
  }
}
// The codes in bits 2J..2J+1 of each byte.
template <int J>
ARK_INLINE B codes_u2(B bytes) {
  for (int i = 0; i < 64; i++) {
    bytes.v[i] = static_cast<int8_t>(static_cast<uint8_t>(bytes.v[i]) >> 2 * J & 3);
  }
  return bytes;
}
ARK_INLINE void keep_order(D*) {}
ARK_INLINE D dot_zero() { return izero(); }
ARK_INLINE I dot_i8(I total, B codes, const int8_t* x) {
  for (int i = 0; i < 16; i++) {
    const int8_t* c = codes.v + 4 * i;
    total.v[i] += c[0] * x[0] + c[1] * x[1] + c[2] * x[2] + c[3] * x[3];
  }
  return total;
}
ARK_INLINE D dot_u4(D total, B codes, const int8_t* x) { return dot_i8(total, codes, x); }
ARK_INLINE I sum_dot(D total) { return total; }

// dot_i8 for x whose pairs of neighbours are at most 128 together; sums have kPairBias for each x.
constexpr int kPairBias = 0;
ARK_INLINE I dot_pairs(I total, B codes, const int8_t* x) { return dot_i8(total, codes, x); }
// dot_i8, without its bias, for x of 0 to 127.
ARK_INLINE I dot_u7(I total, B codes, const int8_t* x) { return dot_i8(total, codes, x); }
ARK_INLINE void pin(I*) {}

ARK_INLINE void prefetch(const void*) {}

ARK_KERNEL_END
