// Whether the compiler and its assembler accept what the avx2 kernels use.
#include <immintrin.h>

__m256 probe(__m256i codes, __m256i x, __m128i halves) {
  __m256i products;
  asm("vpmaddubsw %2, %1, %0" : "=x"(products) : "x"(codes), "x"(x));
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), _mm256_cvtph_ps(halves),
                         _mm256_setzero_ps());
}
