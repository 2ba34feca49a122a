// Integer products of several rows with one group of 4-bit codes, with AVX2.
#pragma once

#include "simd.h"

ARK_KERNEL_BEGIN

// sum += pairs of products, or sum = them. The empty assembly keeps their order: left to itself GCC
// starts the products of all rows before it adds the first, and spills the sums.
template <int H, bool kFirst>
ARK_INLINE void add_pairs(__m256i* sum, const __m256i* codes, const int8_t* x) {
  __m256i four = _mm256_set1_epi32(load_word(x));
  for (int h = 0; h < H; h++) {
    __m256i pairs = _mm256_maddubs_epi16(codes[h], four);
    sum[h] = kFirst ? pairs : _mm256_add_epi16(sum[h], pairs);
    __asm__ __volatile__("" : "+x"(sum[h]));
  }
}

// 8 inputs of H vectors of eight outputs: R rows share the unpacked codes.
template <int R, int H, bool kFirst>
ARK_INLINE void add_chunk(const char* codes, const int8_t* x, int64_t inputs, __m256i* part) {
  __m256i mask = _mm256_set1_epi8(15);
  __m256i bytes[H], half[H];
  for (int h = 0; h < H; h++) {
    bytes[h] = load256(codes + h * 32);
    half[h] = _mm256_and_si256(bytes[h], mask);
  }
  for (int r = 0; r < R; r++) add_pairs<H, kFirst>(part + r * H, half, x + r * inputs);
  for (int h = 0; h < H; h++) half[h] = _mm256_and_si256(_mm256_srli_epi16(bytes[h], 4), mask);
  for (int r = 0; r < R; r++) add_pairs<H, false>(part + r * H, half, x + r * inputs + 4);
}

// Chunks that 16 bits can add up, at least one.
template <int R, int H>
ARK_INLINE void dot_span_u4(const char* codes, const int8_t* x, int64_t inputs, int64_t chunks,
                            bool ahead, __m256i* dot) {
  __m256i part[R * H];
  if (ahead) prefetch(codes + kPrefetchBytes);
  add_chunk<R, H, true>(codes, x, inputs, part);
  ARK_ROLLED
  for (int64_t c = 1; c < chunks; c++) {
    if (ahead) prefetch(codes + c * 64 + kPrefetchBytes);
    add_chunk<R, H, false>(codes + c * 64, x + c * 8, inputs, part);
  }
  __m256i ones = _mm256_set1_epi16(1);
  for (int i = 0; i < R * H; i++) {
    dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(part[i], ones));
  }
}

// One or both halves of the sixteen outputs at a time: as many sums as registers hold.
template <int R>
ARK_INLINE void dot_rows_u4(const char* codes, const int8_t* x, int64_t inputs, int64_t chunks,
                            I* dot) {
  constexpr int H = R <= 5 ? 2 : 1;
  constexpr int64_t kSpan = kDotLimit / 2;
  __m256i sums[2 / H][R * H];
  for (int h = 0; h < 2 / H; h++) {
    for (int i = 0; i < R * H; i++) sums[h][i] = _mm256_setzero_si256();
    int64_t c = 0;
    ARK_ROLLED
    for (; c + kSpan <= chunks; c += kSpan) {
      dot_span_u4<R, H>(codes + c * 64 + h * 32, x + c * 8, inputs, kSpan, h == 0, sums[h]);
    }
    if (c < chunks) {
      dot_span_u4<R, H>(codes + c * 64 + h * 32, x + c * 8, inputs, chunks - c, h == 0, sums[h]);
    }
  }
  for (int r = 0; r < R; r++) {
    dot[r] = H == 2 ? I{sums[0][r * H], sums[0][r * H + H - 1]} : I{sums[0][r], sums[2 / H - 1][r]};
  }
}

ARK_KERNEL_END
