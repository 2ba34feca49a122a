// simd.h for aarch64: a logical vector is four registers. With dotprod and
// i8mm, sdot does the int8 work.
#pragma once

#include <arm_neon.h>

#include "simd.h"

ARK_KERNEL_BEGIN

constexpr int kVectors = 1;
constexpr int kI8Bias = 0;
#if defined(ARK_ISA_dotprod) || defined(ARK_ISA_i8mm)
constexpr int kRows = 4;
constexpr int kDotLimit = 1 << 20;
#else
constexpr int kRows = 2;
// A product of a code up to 15 with int8 is at most 1905: sixteen fit in 16 bits.
constexpr int kDotLimit = 16;
#endif

struct V {
  float32x4_t a, b, c, d;
};
struct I {
  int32x4_t a, b, c, d;
};
struct B {
  int8x16_t a, b, c, d;
};

#define ARK_EACH(f, x) {f((x).a), f((x).b), f((x).c), f((x).d)}
#define ARK_EACH2(f, x, y) {f((x).a, (y).a), f((x).b, (y).b), f((x).c, (y).c), f((x).d, (y).d)}

ARK_INLINE V set(float f) {
  float32x4_t v = vdupq_n_f32(f);
  return {v, v, v, v};
}
ARK_INLINE I iset(int32_t n) {
  int32x4_t v = vdupq_n_s32(n);
  return {v, v, v, v};
}
ARK_INLINE V zero() { return set(0.0f); }
ARK_INLINE I izero() { return iset(0); }
ARK_INLINE V load(const float* p) {
  return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
ARK_INLINE void store(float* p, V v) {
  vst1q_f32(p, v.a);
  vst1q_f32(p + 4, v.b);
  vst1q_f32(p + 8, v.c);
  vst1q_f32(p + 12, v.d);
}
ARK_INLINE float32x4_t four_halves(const uint16_t* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
ARK_INLINE V load_half(const uint16_t* p) {
  return {four_halves(p), four_halves(p + 4), four_halves(p + 8), four_halves(p + 12)};
}
ARK_INLINE void store_half(uint16_t* p, V v) {
  vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v.a)));
  vst1_u16(p + 4, vreinterpret_u16_f16(vcvt_f16_f32(v.b)));
  vst1_u16(p + 8, vreinterpret_u16_f16(vcvt_f16_f32(v.c)));
  vst1_u16(p + 12, vreinterpret_u16_f16(vcvt_f16_f32(v.d)));
}
ARK_INLINE float32x4_t four_bfloats(const uint16_t* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
ARK_INLINE V load_bfloat(const uint16_t* p) {
  return {four_bfloats(p), four_bfloats(p + 4), four_bfloats(p + 8), four_bfloats(p + 12)};
}
ARK_INLINE I load_u8(const uint8_t* p) {
  uint8x16_t v = vld1q_u8(p);
  uint16x8_t low = vmovl_u8(vget_low_u8(v));
  uint16x8_t high = vmovl_u8(vget_high_u8(v));
  return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))),
          vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(low))),
          vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))),
          vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(high)))};
}
ARK_INLINE I load_i8(const int8_t* p) {
  int8x16_t v = vld1q_s8(p);
  int16x8_t low = vmovl_s8(vget_low_s8(v));
  int16x8_t high = vmovl_s8(vget_high_s8(v));
  return {vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)),
          vmovl_s16(vget_low_s16(high)), vmovl_s16(vget_high_s16(high))};
}
ARK_INLINE void store_i8(int8_t* p, I v) {
  int16x8_t low = vcombine_s16(vqmovn_s32(v.a), vqmovn_s32(v.b));
  int16x8_t high = vcombine_s16(vqmovn_s32(v.c), vqmovn_s32(v.d));
  vst1q_s8(p, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
}

ARK_INLINE V add(V x, V y) { return ARK_EACH2(vaddq_f32, x, y); }
ARK_INLINE V sub(V x, V y) { return ARK_EACH2(vsubq_f32, x, y); }
ARK_INLINE V mul(V x, V y) { return ARK_EACH2(vmulq_f32, x, y); }
ARK_INLINE V div(V x, V y) { return ARK_EACH2(vdivq_f32, x, y); }
ARK_INLINE V max(V x, V y) { return ARK_EACH2(vmaxq_f32, x, y); }
ARK_INLINE V min(V x, V y) { return ARK_EACH2(vminq_f32, x, y); }
ARK_INLINE V abs(V x) { return ARK_EACH(vabsq_f32, x); }
ARK_INLINE V fma(V x, V y, V z) {
  return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
          vfmaq_f32(z.d, x.d, y.d)};
}
ARK_INLINE float sum(V x) {
  return vaddvq_f32(vaddq_f32(vaddq_f32(x.a, x.b), vaddq_f32(x.c, x.d)));
}
ARK_INLINE float largest(V x) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.a, x.b), vmaxq_f32(x.c, x.d)));
}
ARK_INLINE V select(uint32_t bits, V v, V other) {
  const uint32_t ones[4] = {1, 2, 4, 8};
  uint32x4_t lane = vld1q_u32(ones);
  return {vbslq_f32(vtstq_u32(vdupq_n_u32(bits), lane), v.a, other.a),
          vbslq_f32(vtstq_u32(vdupq_n_u32(bits >> 4), lane), v.b, other.b),
          vbslq_f32(vtstq_u32(vdupq_n_u32(bits >> 8), lane), v.c, other.c),
          vbslq_f32(vtstq_u32(vdupq_n_u32(bits >> 12), lane), v.d, other.d)};
}
ARK_INLINE I round_to_int(V x) { return ARK_EACH(vcvtnq_s32_f32, x); }
ARK_INLINE V to_float(I x) { return ARK_EACH(vcvtq_f32_s32, x); }
ARK_INLINE I as_int(V x) { return ARK_EACH(vreinterpretq_s32_f32, x); }
ARK_INLINE V as_float(I x) { return ARK_EACH(vreinterpretq_f32_s32, x); }
ARK_INLINE I add(I x, I y) { return ARK_EACH2(vaddq_s32, x, y); }
ARK_INLINE I sub(I x, I y) { return ARK_EACH2(vsubq_s32, x, y); }
ARK_INLINE I mul(I x, I y) { return ARK_EACH2(vmulq_s32, x, y); }
ARK_INLINE int32_t sum(I x) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(x.a, x.b), vaddq_s32(x.c, x.d)));
}
ARK_INLINE I bits_and(I x, int32_t mask) { return ARK_EACH2(vandq_s32, x, iset(mask)); }
// Shifts by a register take any count, also 0; a negative one shifts right.
template <int N>
ARK_INLINE I shl(I x) {
  return ARK_EACH2(vshlq_s32, x, iset(N));
}
template <int N>
ARK_INLINE I sar(I x) {
  return ARK_EACH2(vshlq_s32, x, iset(-N));
}
ARK_INLINE int32x4_t shift_logical(int32x4_t x, int32x4_t n) {
  return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(x), n));
}
template <int N>
ARK_INLINE I shr(I x) {
  return ARK_EACH2(shift_logical, x, iset(-N));
}
ARK_INLINE B load_bytes(const void* p) {
  const int8_t* q = static_cast<const int8_t*>(p);
  return {vld1q_s8(q), vld1q_s8(q + 16), vld1q_s8(q + 32), vld1q_s8(q + 48)};
}
ARK_INLINE I load_words(const void* p) {
  B bytes = load_bytes(p);
  return ARK_EACH(vreinterpretq_s32_s8, bytes);
}
ARK_INLINE int8x16_t low_nibbles(int8x16_t x) { return vandq_s8(x, vdupq_n_s8(15)); }
ARK_INLINE int8x16_t high_nibbles(int8x16_t x) {
  return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(x), 4));
}
ARK_INLINE void unpack_u4(const uint8_t* p, B* low, B* high) {
  B bytes = load_bytes(p);
  *low = ARK_EACH(low_nibbles, bytes);
  *high = ARK_EACH(high_nibbles, bytes);
}

// The codes in bits 2J..2J+1 of each byte. A shift by a register takes any count, also 0.
template <int J>
ARK_INLINE int8x16_t codes_u2(int8x16_t x) {
  uint8x16_t moved = vshlq_u8(vreinterpretq_u8_s8(x), vdupq_n_s8(-2 * J));
  return vandq_s8(vreinterpretq_s8_u8(moved), vdupq_n_s8(3));
}
template <int J>
ARK_INLINE B codes_u2(B bytes) {
  return {codes_u2<J>(bytes.a), codes_u2<J>(bytes.b), codes_u2<J>(bytes.c), codes_u2<J>(bytes.d)};
}

#if defined(ARK_ISA_dotprod) || defined(ARK_ISA_i8mm)
using D = I;
// GCC would regroup the sums of a tile, make all their terms first, and spill them.
ARK_INLINE void keep_order(D* s) { __asm__("" : "+w"(s->a), "+w"(s->b), "+w"(s->c), "+w"(s->d)); }
ARK_INLINE D dot_zero() { return izero(); }
ARK_INLINE I dot_i8(I total, B codes, const int8_t* x) {
  int8x16_t four = vreinterpretq_s8_s32(vdupq_n_s32(load_word(x)));
  return {vdotq_s32(total.a, codes.a, four), vdotq_s32(total.b, codes.b, four),
          vdotq_s32(total.c, codes.c, four), vdotq_s32(total.d, codes.d, four)};
}
ARK_INLINE D dot_u4(D total, B codes, const int8_t* x) { return dot_i8(total, codes, x); }
ARK_INLINE I sum_dot(D total) { return total; }
#else
// Each register holds four products for each of two outputs.
struct D {
  int16x8_t a0, a1, b0, b1, c0, c1, d0, d1;
};
ARK_INLINE void keep_order(D* s) {
  __asm__("" : "+w"(s->a0), "+w"(s->a1), "+w"(s->b0), "+w"(s->b1));
  __asm__("" : "+w"(s->c0), "+w"(s->c1), "+w"(s->d0), "+w"(s->d1));
}
ARK_INLINE D dot_zero() {
  int16x8_t z = vdupq_n_s16(0);
  return {z, z, z, z, z, z, z, z};
}
ARK_INLINE D dot_u4(D t, B codes, const int8_t* x) {
  int8x8_t four = vreinterpret_s8_s32(vdup_n_s32(load_word(x)));
  return {vmlal_s8(t.a0, vget_low_s8(codes.a), four), vmlal_s8(t.a1, vget_high_s8(codes.a), four),
          vmlal_s8(t.b0, vget_low_s8(codes.b), four), vmlal_s8(t.b1, vget_high_s8(codes.b), four),
          vmlal_s8(t.c0, vget_low_s8(codes.c), four), vmlal_s8(t.c1, vget_high_s8(codes.c), four),
          vmlal_s8(t.d0, vget_low_s8(codes.d), four), vmlal_s8(t.d1, vget_high_s8(codes.d), four)};
}
ARK_INLINE int32x4_t sum_pairs(int16x8_t low, int16x8_t high) {
  return vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
}
ARK_INLINE I sum_dot(D t) {
  return {sum_pairs(t.a0, t.a1), sum_pairs(t.b0, t.b1), sum_pairs(t.c0, t.c1),
          sum_pairs(t.d0, t.d1)};
}
ARK_INLINE int32x4_t dot_four(int32x4_t total, int8x16_t codes, int8x8_t four) {
  return vaddq_s32(
      total, sum_pairs(vmull_s8(vget_low_s8(codes), four), vmull_s8(vget_high_s8(codes), four)));
}
ARK_INLINE I dot_i8(I t, B codes, const int8_t* x) {
  int8x8_t four = vreinterpret_s8_s32(vdup_n_s32(load_word(x)));
  return {dot_four(t.a, codes.a, four), dot_four(t.b, codes.b, four), dot_four(t.c, codes.c, four),
          dot_four(t.d, codes.d, four)};
}
#endif
#undef ARK_EACH
#undef ARK_EACH2

// dot_i8 for x whose pairs of neighbours are at most 128 together; sums have kPairBias for each x.
constexpr int kPairBias = 0;
ARK_INLINE I dot_pairs(I total, B codes, const int8_t* x) { return dot_i8(total, codes, x); }
// dot_i8, without its bias, for x of 0 to 127.
ARK_INLINE I dot_u7(I total, B codes, const int8_t* x) { return dot_i8(total, codes, x); }
ARK_INLINE void pin(I*) {}

ARK_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

ARK_KERNEL_END
