// Integer products of several rows with one group of 4-bit codes, with AVX2.
#pragma once

#include "simd.h"

ARK_KERNEL_BEGIN

// sum += pairs of products, or sum = them. The empty assembly keeps their order: left to itself GCC
// starts the products of all rows before it adds the first, and spills the sums.
template <bool kFirst>
ARK_INLINE void add_pairs(__m256i* sum, const __m256i* codes, const int8_t* x) {
  __m256i four = _mm256_set1_epi32(load_word(x));
  for (int h = 0; h < 2; h++) {
    __m256i pairs = _mm256_maddubs_epi16(codes[h], four);
    sum[h] = kFirst ? pairs : _mm256_add_epi16(sum[h], pairs);
    __asm__ __volatile__("" : "+x"(sum[h]));
  }
}

// 8 inputs: R rows share the unpacked codes.
template <int R, bool kFirst>
ARK_INLINE void add_chunk(const char* codes, const int8_t* x, int64_t inputs, __m256i* part) {
  B low, high;
  unpack_u4(reinterpret_cast<const uint8_t*>(codes), &low, &high);
  __m256i first[2] = {low.a, low.b}, second[2] = {high.a, high.b};
  prefetch(codes + kPrefetchBytes);
  for (int r = 0; r < R; r++) add_pairs<kFirst>(part + r * 2, first, x + r * inputs);
  for (int r = 0; r < R; r++) add_pairs<false>(part + r * 2, second, x + r * inputs + 4);
}

// Adds chunks that 16 bits can add up, at least one.
template <int R>
ARK_INLINE void add_span_u4(const char* codes, const int8_t* x, int64_t inputs, int64_t chunks,
                            I* dot) {
  __m256i part[R * 2];
  add_chunk<R, true>(codes, x, inputs, part);
  ARK_ROLLED
  for (int64_t c = 1; c < chunks; c++) {
    add_chunk<R, false>(codes + c * 64, x + c * 8, inputs, part);
  }
  for (int r = 0; r < R; r++) dot[r] = add(dot[r], sum_dot(D{part[r * 2], part[r * 2 + 1]}));
}

template <int R>
ARK_INLINE void dot_rows_u4(const char* codes, const int8_t* x, int64_t inputs, int64_t chunks,
                            I* dot) {
  constexpr int64_t kSpan = kDotLimit / 2;
  for (int r = 0; r < R; r++) dot[r] = izero();
  int64_t c = 0;
  ARK_ROLLED
  for (; c + kSpan <= chunks; c += kSpan) {
    add_span_u4<R>(codes + c * 64, x + c * 8, inputs, kSpan, dot);
  }
  if (c < chunks) add_span_u4<R>(codes + c * 64, x + c * 8, inputs, chunks - c, dot);
}

ARK_KERNEL_END
