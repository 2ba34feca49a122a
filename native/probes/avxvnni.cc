// Whether the compiler and its assembler accept what the avxvnni kernels use.
#include <immintrin.h>

__m256i probe(__m256i sum, __m256i codes, __m256i x) {
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(codes), "x"(x));
  return _mm256_dpbusd_avx_epi32(sum, codes, x);
}
