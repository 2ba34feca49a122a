// simd.h with AVX-512 (F, BW, VL, DQ), and with VNNI for avx512vnni and amx.
#pragma once

#if defined(ARK_SIMDE)
#include "../tests/simde_avx512.h"
#else
#if !defined(__clang__)
#pragma GCC diagnostic push
// GCC 12 takes the header's deliberately undefined registers for a mistake of ours.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

#include "simd.h"

ARK_KERNEL_BEGIN

constexpr int kRows = 8;
constexpr int kVectors = 2;
#if defined(ARK_ISA_avx512vnni) || defined(ARK_ISA_amx)
constexpr int kDotLimit = 1 << 20;
// dpbusd wants one unsigned side, so dot_i8 adds 128 to the codes.
constexpr int kI8Bias = 128;
#else
// A pair of products of codes up to 15 with int8 is at most 3810: eight fit in 16 bits.
constexpr int kDotLimit = 8;
constexpr int kI8Bias = 0;
#endif

struct V {
  __m512 r;
};
struct I {
  __m512i r;
};
struct B {
  __m512i r;
};
using D = I;

ARK_INLINE __m512i load512(const void* p) { return _mm512_loadu_si512(p); }
ARK_INLINE __m256i load256(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
ARK_INLINE __m128i load128(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}

ARK_INLINE V zero() { return {_mm512_setzero_ps()}; }
ARK_INLINE I izero() { return {_mm512_setzero_si512()}; }
ARK_INLINE V set(float f) { return {_mm512_set1_ps(f)}; }
ARK_INLINE I iset(int32_t n) { return {_mm512_set1_epi32(n)}; }
ARK_INLINE V load(const float* p) { return {_mm512_loadu_ps(p)}; }
ARK_INLINE void store(float* p, V v) { _mm512_storeu_ps(p, v.r); }
ARK_INLINE V load_half(const uint16_t* p) { return {_mm512_cvtph_ps(load256(p))}; }
ARK_INLINE void store_half(uint16_t* p, V v) {
  __m256i halves = _mm512_cvtps_ph(v.r, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), halves);
}
ARK_INLINE V load_bfloat(const uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load256(p)), 16))};
}
ARK_INLINE I load_u8(const uint8_t* p) { return {_mm512_cvtepu8_epi32(load128(p))}; }
ARK_INLINE I load_i8(const int8_t* p) { return {_mm512_cvtepi8_epi32(load128(p))}; }
ARK_INLINE void store_i8(int8_t* p, I v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(v.r));
}

ARK_INLINE V add(V x, V y) { return {_mm512_add_ps(x.r, y.r)}; }
ARK_INLINE V sub(V x, V y) { return {_mm512_sub_ps(x.r, y.r)}; }
ARK_INLINE V mul(V x, V y) { return {_mm512_mul_ps(x.r, y.r)}; }
ARK_INLINE V div(V x, V y) { return {_mm512_div_ps(x.r, y.r)}; }
ARK_INLINE V max(V x, V y) { return {_mm512_max_ps(x.r, y.r)}; }
ARK_INLINE V min(V x, V y) { return {_mm512_min_ps(x.r, y.r)}; }
ARK_INLINE V fma(V x, V y, V z) { return {_mm512_fmadd_ps(x.r, y.r, z.r)}; }
ARK_INLINE V abs(V x) { return {_mm512_abs_ps(x.r)}; }
ARK_INLINE float sum(V x) { return _mm512_reduce_add_ps(x.r); }
ARK_INLINE float largest(V x) { return _mm512_reduce_max_ps(x.r); }
ARK_INLINE V select(uint32_t bits, V v, V other) {
  return {_mm512_mask_blend_ps(static_cast<__mmask16>(bits), other.r, v.r)};
}
ARK_INLINE I round_to_int(V x) { return {_mm512_cvtps_epi32(x.r)}; }
ARK_INLINE V to_float(I x) { return {_mm512_cvtepi32_ps(x.r)}; }
ARK_INLINE I as_int(V x) { return {_mm512_castps_si512(x.r)}; }
ARK_INLINE V as_float(I x) { return {_mm512_castsi512_ps(x.r)}; }
ARK_INLINE I add(I x, I y) { return {_mm512_add_epi32(x.r, y.r)}; }
ARK_INLINE I sub(I x, I y) { return {_mm512_sub_epi32(x.r, y.r)}; }
ARK_INLINE I mul(I x, I y) { return {_mm512_mullo_epi32(x.r, y.r)}; }
ARK_INLINE int32_t sum(I x) { return _mm512_reduce_add_epi32(x.r); }
ARK_INLINE I bits_and(I x, int32_t mask) {
  return {_mm512_and_si512(x.r, _mm512_set1_epi32(mask))};
}
template <int N>
ARK_INLINE I shl(I x) {
  return {_mm512_slli_epi32(x.r, N)};
}
template <int N>
ARK_INLINE I shr(I x) {
  return {_mm512_srli_epi32(x.r, N)};
}
template <int N>
ARK_INLINE I sar(I x) {
  return {_mm512_srai_epi32(x.r, N)};
}
ARK_INLINE I load_words(const void* p) { return {load512(p)}; }

ARK_INLINE B load_bytes(const void* p) { return {load512(p)}; }
ARK_INLINE void unpack_u4(const uint8_t* p, B* low, B* high) {
  __m512i mask = _mm512_set1_epi8(15);
  __m512i bytes = load512(p);
  *low = {_mm512_and_si512(bytes, mask)};
  *high = {_mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask)};
}
// The codes in bits 2J..2J+1 of each byte.
template <int J>
ARK_INLINE B codes_u2(B bytes) {
  __m512i mask = _mm512_set1_epi8(3);
  if (J == 0) return {_mm512_and_si512(bytes.r, mask)};
  return {_mm512_and_si512(_mm512_srli_epi16(bytes.r, 2 * J), mask)};
}
// GCC would regroup the sums of a tile, make all their terms first, and spill them.
ARK_INLINE void keep_order(D* sum) {
#if !defined(ARK_SIMDE)
  __asm__("" : "+v"(sum->r));
#else
  (void)sum;
#endif
}
ARK_INLINE D dot_zero() { return izero(); }
// int8 + 128 as unsigned bytes.
ARK_INLINE B flip_signs(B codes) {
  return {_mm512_xor_si512(codes.r, _mm512_set1_epi8(static_cast<char>(0x80)))};
}
#if defined(ARK_ISA_avx512vnni) || defined(ARK_ISA_amx)
ARK_INLINE D dot_u4(D total, B codes, const int8_t* x) {
  return {_mm512_dpbusd_epi32(total.r, codes.r, _mm512_set1_epi32(load_word(x)))};
}
ARK_INLINE I sum_dot(D total) { return total; }
ARK_INLINE I dot_i8(I total, B codes, const int8_t* x) {
  return dot_u4(total, flip_signs(codes), x);
}
#else
ARK_INLINE D dot_u4(D total, B codes, const int8_t* x) {
  __m512i four = _mm512_set1_epi32(load_word(x));
  return {_mm512_add_epi16(total.r, _mm512_maddubs_epi16(codes.r, four))};
}
ARK_INLINE I sum_dot(D total) { return {_mm512_madd_epi16(total.r, _mm512_set1_epi16(1))}; }
// maddubs wants one unsigned side: the sign of each code moves over to its activation.
ARK_INLINE I dot_i8(I total, B codes, const int8_t* x) {
  __m512i four = _mm512_set1_epi32(load_word(x));
  __m512i moved =
      _mm512_mask_sub_epi8(four, _mm512_movepi8_mask(codes.r), _mm512_setzero_si512(), four);
  __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(codes.r), moved);
  return {_mm512_add_epi32(total.r, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
}
#endif

// dot_i8 of codes + 128 for x whose pairs of neighbours are at most 128 together: then a pair of
// products fits in 16 bits, and no sign has to move over.
constexpr int kPairBias = 128;
ARK_INLINE I dot_pairs(I total, B codes, const int8_t* x) {
  __m512i four = _mm512_set1_epi32(load_word(x));
#if defined(ARK_ISA_avx512vnni) || defined(ARK_ISA_amx)
  return {_mm512_dpbusd_epi32(total.r, flip_signs(codes).r, four)};
#else
  __m512i pairs = _mm512_maddubs_epi16(flip_signs(codes).r, four);
  return {_mm512_add_epi32(total.r, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
#endif
}

// dot_i8, without its bias, for x of 0 to 127.
ARK_INLINE I dot_u7(I total, B codes, const int8_t* x) {
  __m512i four = _mm512_set1_epi32(load_word(x));
#if defined(ARK_ISA_avx512vnni) || defined(ARK_ISA_amx)
  return {_mm512_dpbusd_epi32(total.r, four, codes.r)};
#else
  __m512i pairs = _mm512_maddubs_epi16(four, codes.r);
  return {_mm512_add_epi32(total.r, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
#endif
}
#if defined(ARK_SIMDE)
ARK_INLINE void pin(I*) {}
#else
// Integer sums of several turns or products must not be regrouped: every term would be spilled.
ARK_INLINE void pin(I* x) { __asm__("" : "+v"(x->r)); }
#endif

ARK_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

ARK_KERNEL_END
