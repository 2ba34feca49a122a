// AVX-VNNI on a CPU without it, for tests only.
#pragma once

#include <string.h>

static inline __m256i ark_dpbusd(__m256i total, __m256i codes, __m256i x) {
  int32_t t[8];
  uint8_t c[32];
  int8_t v[32];
  memcpy(t, &total, sizeof(t));
  memcpy(c, &codes, sizeof(c));
  memcpy(v, &x, sizeof(v));
  for (int i = 0; i < 32; i++) t[i / 4] += c[i] * v[i];
  memcpy(&total, t, sizeof(t));
  return total;
}

// As a macro, because the compiler's header may have declared a function of this name.
#define _mm256_dpbusd_avx_epi32 ark_dpbusd
