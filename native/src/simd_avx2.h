// simd.h with AVX2, FMA and F16C, and with VNNI for avxvnni: a logical vector is two registers.
#pragma once

#include <immintrin.h>
#if defined(ARK_ISA_avxvnni) && defined(ARK_SIMDE)
#include "../tests/emulated_avxvnni.h"
#endif

#include "simd.h"

ARK_KERNEL_BEGIN

constexpr int kRows = 4;
constexpr int kVectors = 1;
#if defined(ARK_ISA_avxvnni)
constexpr int kDotLimit = 1 << 20;
// dpbusd wants one unsigned side, so dot_i8 adds 128 to the codes.
constexpr int kI8Bias = 128;
#else
// A pair of products of codes up to 15 with int8 is at most 3810: eight fit in 16 bits.
constexpr int kDotLimit = 8;
constexpr int kI8Bias = 0;
#endif

struct V {
  __m256 a, b;
};
struct I {
  __m256i a, b;
};
struct B {
  __m256i a, b;
};
#if defined(ARK_ISA_avxvnni)
using D = I;
#else
struct D {
  __m256i a, b;
};
#endif

ARK_INLINE __m256i load256(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
ARK_INLINE __m128i load128(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
ARK_INLINE __m128i load64(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }

ARK_INLINE V zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
ARK_INLINE I izero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
ARK_INLINE V set(float f) { return {_mm256_set1_ps(f), _mm256_set1_ps(f)}; }
ARK_INLINE I iset(int32_t n) { return {_mm256_set1_epi32(n), _mm256_set1_epi32(n)}; }
ARK_INLINE V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
ARK_INLINE void store(float* p, V v) {
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
}
ARK_INLINE V load_half(const uint16_t* p) {
  return {_mm256_cvtph_ps(load128(p)), _mm256_cvtph_ps(load128(p + 8))};
}
ARK_INLINE void store_half(uint16_t* p, V v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8),
                   _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT));
}
ARK_INLINE V load_bfloat(const uint16_t* p) {
  __m256i a = _mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p)), 16);
  __m256i b = _mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p + 8)), 16);
  return {_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)};
}
ARK_INLINE I load_u8(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(load64(p)), _mm256_cvtepu8_epi32(load64(p + 8))};
}
ARK_INLINE I load_i8(const int8_t* p) {
  return {_mm256_cvtepi8_epi32(load64(p)), _mm256_cvtepi8_epi32(load64(p + 8))};
}
ARK_INLINE void store_i8(int8_t* p, I v) {
  __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.a, v.b), 0xd8);
  __m128i bytes =
      _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

ARK_INLINE V add(V x, V y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
ARK_INLINE V sub(V x, V y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
ARK_INLINE V mul(V x, V y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
ARK_INLINE V div(V x, V y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
ARK_INLINE V max(V x, V y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
ARK_INLINE V min(V x, V y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
ARK_INLINE V fma(V x, V y, V z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
ARK_INLINE V abs(V x) {
  __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
ARK_INLINE float sum(V x) {
  __m256 eight = _mm256_add_ps(x.a, x.b);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
ARK_INLINE float largest(V x) {
  __m256 eight = _mm256_max_ps(x.a, x.b);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
ARK_INLINE V select(uint32_t bits, V v, V other) {
  __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  __m256i a = _mm256_and_si256(_mm256_set1_epi32(static_cast<int32_t>(bits)), lane);
  __m256i b = _mm256_and_si256(_mm256_set1_epi32(static_cast<int32_t>(bits >> 8)), lane);
  __m256 take_a = _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, lane));
  __m256 take_b = _mm256_castsi256_ps(_mm256_cmpeq_epi32(b, lane));
  return {_mm256_blendv_ps(other.a, v.a, take_a), _mm256_blendv_ps(other.b, v.b, take_b)};
}
ARK_INLINE I round_to_int(V x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
ARK_INLINE V to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
ARK_INLINE I as_int(V x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
ARK_INLINE V as_float(I x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
ARK_INLINE I add(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
ARK_INLINE I sub(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
ARK_INLINE I mul(I x, I y) { return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)}; }
ARK_INLINE int32_t sum(I x) {
  __m256i eight = _mm256_add_epi32(x.a, x.b);
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}
ARK_INLINE I bits_and(I x, int32_t mask) {
  __m256i m = _mm256_set1_epi32(mask);
  return {_mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m)};
}
template <int N>
ARK_INLINE I shl(I x) {
  return {_mm256_slli_epi32(x.a, N), _mm256_slli_epi32(x.b, N)};
}
template <int N>
ARK_INLINE I shr(I x) {
  return {_mm256_srli_epi32(x.a, N), _mm256_srli_epi32(x.b, N)};
}
template <int N>
ARK_INLINE I sar(I x) {
  return {_mm256_srai_epi32(x.a, N), _mm256_srai_epi32(x.b, N)};
}
ARK_INLINE I load_words(const void* p) {
  return {load256(p), load256(static_cast<const char*>(p) + 32)};
}

ARK_INLINE B load_bytes(const void* p) {
  return {load256(p), load256(static_cast<const char*>(p) + 32)};
}
ARK_INLINE void unpack_u4(const uint8_t* p, B* low, B* high) {
  __m256i mask = _mm256_set1_epi8(15);
  __m256i a = load256(p);
  __m256i b = load256(p + 32);
  *low = {_mm256_and_si256(a, mask), _mm256_and_si256(b, mask)};
  *high = {_mm256_and_si256(_mm256_srli_epi16(a, 4), mask),
           _mm256_and_si256(_mm256_srli_epi16(b, 4), mask)};
}
// The codes in bits 2J..2J+1 of each byte.
template <int J>
ARK_INLINE B codes_u2(B bytes) {
  __m256i mask = _mm256_set1_epi8(3);
  if (J == 0) return {_mm256_and_si256(bytes.a, mask), _mm256_and_si256(bytes.b, mask)};
  return {_mm256_and_si256(_mm256_srli_epi16(bytes.a, 2 * J), mask),
          _mm256_and_si256(_mm256_srli_epi16(bytes.b, 2 * J), mask)};
}
// GCC would regroup the sums of a tile, make all their terms first, and spill them.
ARK_INLINE void keep_order(D* sum) { __asm__("" : "+x"(sum->a), "+x"(sum->b)); }
ARK_INLINE D dot_zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
// int8 + 128 as unsigned bytes.
ARK_INLINE B flip_signs(B codes) {
  __m256i sign = _mm256_set1_epi8(static_cast<char>(0x80));
  return {_mm256_xor_si256(codes.a, sign), _mm256_xor_si256(codes.b, sign)};
}
#if defined(ARK_ISA_avxvnni)
ARK_INLINE D dot_u4(D total, B codes, const int8_t* x) {
  __m256i four = _mm256_set1_epi32(load_word(x));
  return {_mm256_dpbusd_avx_epi32(total.a, codes.a, four),
          _mm256_dpbusd_avx_epi32(total.b, codes.b, four)};
}
ARK_INLINE I sum_dot(D total) { return total; }
ARK_INLINE I dot_i8(I total, B codes, const int8_t* x) {
  return dot_u4(total, flip_signs(codes), x);
}
#else
ARK_INLINE D dot_u4(D total, B codes, const int8_t* x) {
  __m256i four = _mm256_set1_epi32(load_word(x));
  return {_mm256_add_epi16(total.a, _mm256_maddubs_epi16(codes.a, four)),
          _mm256_add_epi16(total.b, _mm256_maddubs_epi16(codes.b, four))};
}
ARK_INLINE I sum_dot(D total) {
  __m256i ones = _mm256_set1_epi16(1);
  return {_mm256_madd_epi16(total.a, ones), _mm256_madd_epi16(total.b, ones)};
}
// maddubs wants one unsigned side: the sign of each code moves over to its activation.
ARK_INLINE __m256i dot_signed(__m256i total, __m256i codes, __m256i four) {
  __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(four, codes));
  return _mm256_add_epi32(total, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
ARK_INLINE I dot_i8(I total, B codes, const int8_t* x) {
  __m256i four = _mm256_set1_epi32(load_word(x));
  return {dot_signed(total.a, codes.a, four), dot_signed(total.b, codes.b, four)};
}
#endif

// dot_i8 of codes + 128 for x whose pairs of neighbours are at most 128 together: then a pair of
// products fits in 16 bits, and no sign has to move over.
ARK_INLINE __m256i dot_flipped(__m256i total, __m256i codes, __m256i four) {
#if defined(ARK_ISA_avxvnni)
  return _mm256_dpbusd_avx_epi32(total, codes, four);
#else
  __m256i pairs = _mm256_maddubs_epi16(codes, four);
  return _mm256_add_epi32(total, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}
constexpr int kPairBias = 128;
ARK_INLINE I dot_pairs(I total, B codes, const int8_t* x) {
  __m256i four = _mm256_set1_epi32(load_word(x));
  B flipped = flip_signs(codes);
  return {dot_flipped(total.a, flipped.a, four), dot_flipped(total.b, flipped.b, four)};
}

// dot_i8, without its bias, for x of 0 to 127: a pair of products fits in 16 bits.
ARK_INLINE __m256i dot_unsigned(__m256i total, __m256i codes, __m256i four) {
#if defined(ARK_ISA_avxvnni)
  return _mm256_dpbusd_avx_epi32(total, four, codes);
#else
  __m256i pairs = _mm256_maddubs_epi16(four, codes);
  return _mm256_add_epi32(total, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}
ARK_INLINE I dot_u7(I total, B codes, const int8_t* x) {
  __m256i four = _mm256_set1_epi32(load_word(x));
  return {dot_unsigned(total.a, codes.a, four), dot_unsigned(total.b, codes.b, four)};
}
// Integer sums of several turns or products must not be regrouped: every term would be spilled.
ARK_INLINE void pin(I* x) { __asm__("" : "+x"(x->a), "+x"(x->b)); }

ARK_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

ARK_KERNEL_END
