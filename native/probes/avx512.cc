// Whether the compiler and its assembler accept what the avx512 kernels use.
#include <immintrin.h>

float probe(__m512i codes, __m512i x, __m256i halves) {
  __m512i products;
  asm("vpmaddubsw %2, %1, %0" : "=v"(products) : "v"(codes), "v"(x));
  products = _mm512_mask_sub_epi8(products, _mm512_movepi8_mask(x), products, x);
  __m512 sums = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_cvtph_ps(halves),
                                _mm512_abs_ps(_mm512_castsi512_ps(x)));
  return _mm512_reduce_add_ps(sums);
}
