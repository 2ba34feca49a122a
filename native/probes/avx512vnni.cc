// Whether the compiler and its assembler accept what the avx512vnni kernels use.
#include <immintrin.h>

__m512i probe(__m512i sum, __m512i codes, __m512i x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(x));
  return _mm512_dpbusd_epi32(sum, codes, x);
}
