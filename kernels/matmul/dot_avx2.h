// Integer products of several rows with one group of 4-bit codes, with AVX2.
#pragma once

#include "simd.h"

ARK_KERNEL_BEGIN

// sum += pairs of products. The empty assembly keeps their order: left to itself GCC starts the
// products of all rows before it adds the first, and spills the sums.
ARK_INLINE void add_pairs(__m256i* sum, __m256i codes, const int8_t* x) {
  __m256i four = _mm256_set1_epi32(load_word(x));
  *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(codes, four));
  __asm__ __volatile__("" : "+x"(*sum));
}

// Eight of the sixteen outputs: a row is one register, so that eight rows share the unpacked codes.
// codes are 32 of every 64 bytes; a span of chunks is what 16 bits can add up.
template <int R>
ARK_INLINE void dot_span_u4(const char* codes, const int8_t* x, int64_t inputs, int64_t chunks,
                            __m256i* dot) {
  __m256i mask = _mm256_set1_epi8(15);
  __m256i part[R];
  for (int r = 0; r < R; r++) part[r] = _mm256_setzero_si256();
  ARK_ROLLED
  for (int64_t c = 0; c < chunks; c++, codes += 64, x += 8) {
    prefetch(codes + kPrefetchBytes);
    __m256i bytes = load256(codes);
    __m256i low = _mm256_and_si256(bytes, mask);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
    for (int r = 0; r < R; r++) add_pairs(&part[r], low, x + r * inputs);
    for (int r = 0; r < R; r++) add_pairs(&part[r], high, x + r * inputs + 4);
  }
  __m256i ones = _mm256_set1_epi16(1);
  for (int r = 0; r < R; r++) {
    dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(part[r], ones));
  }
}

template <int R>
ARK_INLINE void dot_rows_u4(const char* codes, const int8_t* x, int64_t inputs, int64_t chunks,
                            I* dot) {
  constexpr int64_t kSpan = kDotLimit / 2;
  __m256i half[2][R];
  for (int h = 0; h < 2; h++) {
    for (int r = 0; r < R; r++) half[h][r] = _mm256_setzero_si256();
    ARK_ROLLED
    for (int64_t c = 0; c < chunks; c += kSpan) {
      dot_span_u4<R>(codes + c * 64 + h * 32, x + c * 8, inputs, smaller(kSpan, chunks - c),
                     half[h]);
    }
  }
  for (int r = 0; r < R; r++) dot[r] = {half[0][r], half[1][r]};
}

ARK_KERNEL_END
