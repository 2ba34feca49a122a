// AVX-512 on a CPU without it, for tests only: SIMD Everywhere under the compiler's names, and the
// few operations that SIMD Everywhere 0.7.4 lacks, as two AVX2 halves.
#pragma once

#pragma GCC diagnostic ignored "-Wpsabi"
#include <simde/x86/avx512.h>

struct ArkHalves {
  __m256i low, high;
};
static inline ArkHalves ark_split(simde__m512i v) {
  ArkHalves h;
  memcpy(&h, &v, sizeof(h));
  return h;
}
static inline ArkHalves ark_split(simde__m512 v) {
  ArkHalves h;
  memcpy(&h, &v, sizeof(h));
  return h;
}
static inline simde__m512i ark_ints(__m256i low, __m256i high) {
  ArkHalves h = {low, high};
  simde__m512i v;
  memcpy(&v, &h, sizeof(v));
  return v;
}
static inline simde__m512 ark_floats(__m256 low, __m256 high) {
  ArkHalves h = {_mm256_castps_si256(low), _mm256_castps_si256(high)};
  simde__m512 v;
  memcpy(&v, &h, sizeof(v));
  return v;
}

static inline simde__m512 ark_cvtph_ps(__m256i v) {
  return ark_floats(_mm256_cvtph_ps(_mm256_castsi256_si128(v)),
                    _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1)));
}
static inline __m256i ark_cvtps_ph(simde__m512 v) {
  ArkHalves h = ark_split(v);
  return _mm256_set_m128i(_mm256_cvtps_ph(_mm256_castsi256_ps(h.high), _MM_FROUND_TO_NEAREST_INT),
                          _mm256_cvtps_ph(_mm256_castsi256_ps(h.low), _MM_FROUND_TO_NEAREST_INT));
}
static inline simde__m512i ark_cvtepu16_epi32(__m256i v) {
  return ark_ints(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(v)),
                  _mm256_cvtepu16_epi32(_mm256_extracti128_si256(v, 1)));
}
static inline simde__m512i ark_cvtepu8_epi32(__m128i v) {
  return ark_ints(_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8)));
}
static inline simde__m512i ark_cvtepi8_epi32(__m128i v) {
  return ark_ints(_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8)));
}
static inline simde__m512i ark_cvtps_epi32(simde__m512 v) {
  ArkHalves h = ark_split(v);
  return ark_ints(_mm256_cvtps_epi32(_mm256_castsi256_ps(h.low)),
                  _mm256_cvtps_epi32(_mm256_castsi256_ps(h.high)));
}
static inline simde__m512 ark_cvtepi32_ps(simde__m512i v) {
  ArkHalves h = ark_split(v);
  return ark_floats(_mm256_cvtepi32_ps(h.low), _mm256_cvtepi32_ps(h.high));
}
static inline simde__m512i ark_srai_epi32(simde__m512i v, int n) {
  ArkHalves h = ark_split(v);
  return ark_ints(_mm256_srai_epi32(h.low, n), _mm256_srai_epi32(h.high, n));
}
// The order of the compiler's reductions: halves, then quarters, then pairs.
static inline float ark_reduce_add_ps(simde__m512 v) {
  float f[16];
  memcpy(f, &v, sizeof(f));
  for (int n = 8; n > 0; n /= 2) {
    for (int i = 0; i < n; i++) f[i] += f[i + n];
  }
  return f[0];
}
static inline float ark_reduce_max_ps(simde__m512 v) {
  float f[16];
  memcpy(f, &v, sizeof(f));
  for (int i = 1; i < 16; i++) f[0] = f[i] > f[0] ? f[i] : f[0];
  return f[0];
}
static inline int32_t ark_reduce_add_epi32(simde__m512i v) {
  int32_t n[16];
  memcpy(n, &v, sizeof(n));
  for (int i = 1; i < 16; i++) n[0] += n[i];
  return n[0];
}

// As macros, because the compiler's header has already declared functions of these names.
#define __m512 simde__m512
#define __m512i simde__m512i
#define __mmask16 simde__mmask16
#define _mm512_loadu_si512 simde_mm512_loadu_si512
#define _mm512_loadu_ps simde_mm512_loadu_ps
#define _mm512_storeu_ps simde_mm512_storeu_ps
#define _mm512_setzero_ps simde_mm512_setzero_ps
#define _mm512_setzero_si512 simde_mm512_setzero_si512
#define _mm512_set1_ps simde_mm512_set1_ps
#define _mm512_set1_epi32 simde_mm512_set1_epi32
#define _mm512_set1_epi16 simde_mm512_set1_epi16
#define _mm512_set1_epi8 simde_mm512_set1_epi8
#define _mm512_castsi512_ps simde_mm512_castsi512_ps
#define _mm512_castps_si512 simde_mm512_castps_si512
#define _mm512_slli_epi32 simde_mm512_slli_epi32
#define _mm512_srli_epi32 simde_mm512_srli_epi32
#define _mm512_srli_epi16 simde_mm512_srli_epi16
#define _mm512_cvtsepi32_epi8 simde_mm512_cvtsepi32_epi8
#define _mm512_add_ps simde_mm512_add_ps
#define _mm512_sub_ps simde_mm512_sub_ps
#define _mm512_mul_ps simde_mm512_mul_ps
#define _mm512_div_ps simde_mm512_div_ps
#define _mm512_max_ps simde_mm512_max_ps
#define _mm512_min_ps simde_mm512_min_ps
#define _mm512_abs_ps simde_mm512_abs_ps
#define _mm512_fmadd_ps simde_mm512_fmadd_ps
#define _mm512_mask_blend_ps simde_mm512_mask_blend_ps
#define _mm512_add_epi32 simde_mm512_add_epi32
#define _mm512_sub_epi32 simde_mm512_sub_epi32
#define _mm512_mullo_epi32 simde_mm512_mullo_epi32
#define _mm512_and_si512 simde_mm512_and_si512
#define _mm512_xor_si512 simde_mm512_xor_si512
#define _mm512_add_epi16 simde_mm512_add_epi16
#define _mm512_abs_epi8 simde_mm512_abs_epi8
#define _mm512_movepi8_mask simde_mm512_movepi8_mask
#define _mm512_mask_sub_epi8 simde_mm512_mask_sub_epi8
#define _mm512_maddubs_epi16 simde_mm512_maddubs_epi16
#define _mm512_madd_epi16 simde_mm512_madd_epi16
#define _mm512_dpbusd_epi32 simde_mm512_dpbusd_epi32
#define _mm512_cvtph_ps ark_cvtph_ps
#define _mm512_cvtps_ph(v, rounding) ark_cvtps_ph(v)
#define _mm512_cvtepu16_epi32 ark_cvtepu16_epi32
#define _mm512_cvtepu8_epi32 ark_cvtepu8_epi32
#define _mm512_cvtepi8_epi32 ark_cvtepi8_epi32
#define _mm512_cvtps_epi32 ark_cvtps_epi32
#define _mm512_cvtepi32_ps ark_cvtepi32_ps
#define _mm512_srai_epi32 ark_srai_epi32
#define _mm512_reduce_add_ps ark_reduce_add_ps
#define _mm512_reduce_max_ps ark_reduce_max_ps
#define _mm512_reduce_add_epi32 ark_reduce_add_epi32
