// gemm_tile.h with AVX2: four rows by one panel, eight running sums of 16-bit pairs.
#pragma once

#include "panels.h"

ARK_KERNEL_BEGIN

constexpr int kTileRows = 4;
constexpr int kTilePanels = 1;
constexpr int64_t kBlockInputs = 1024;  // 16 KiB of unpacked codes: half of the first-level cache
constexpr int kTileStep = 4;

ARK_INLINE void unpack_step(B first, B second, uint8_t* to) {
  memcpy(to, &first, 64);
  memcpy(to + 64, &second, 64);
}

// sum += pairs of products. Left to itself GCC starts all products of a step before it adds the
// first, and spills the sums.
ARK_INLINE void add_products(__m256i* sum, __m256i codes, __m256i x) {
  __m256i products;
  asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
      : "+x"(*sum), "=&x"(products)
      : "x"(codes), "x"(x));
}

// One step of four inputs; the first of a span begins the sums.
template <bool kFirst>
ARK_INLINE void add_step(const uint8_t* weights, const int8_t* x, D* part) {
  __m256i a = load256(weights);
  __m256i b = load256(weights + 32);
  for (int r = 0; r < kTileRows; r++) {
    __m256i four = _mm256_set1_epi32(load_word(x + r * 4));
    if (kFirst) {
      part[r] = {_mm256_maddubs_epi16(a, four), _mm256_maddubs_epi16(b, four)};
    } else {
      add_products(&part[r].a, a, four);
      add_products(&part[r].b, b, four);
    }
  }
}

// Two steps.
template <bool kFirst>
ARK_INLINE void add_chunk(const uint8_t* weights, const int8_t* x, D* part) {
  add_step<kFirst>(weights, x, part);
  add_step<false>(weights + 64, x + kTileRows * kTileStep, part);
}

template <DType kCodes>
ARK_INLINE void dot_tile(const uint8_t* weights, int64_t, const int8_t* x, int64_t inputs, I* dot) {
  constexpr int64_t kStepBytes = kTileRows * kTileStep;
  if (kCodes == DType::i8) {
    ARK_ROLLED
    for (int64_t k = 0; k < inputs; k += 4, weights += 64, x += kStepBytes) {
      B bytes = load_bytes(weights);
      for (int r = 0; r < kTileRows; r++) dot[r] = dot_i8(dot[r], bytes, x + r * 4);
    }
    return;
  }
  // A pair of products of 4-bit codes is at most 3810, of 2-bit codes 762: 8 and 40 fit in 16 bits.
  constexpr int64_t kSpan = kCodes == DType::u4 ? 32 : 128;
  D part[kTileRows];
  while (inputs >= 32) {
    int64_t span = smaller(kSpan, inputs / 32 * 32);
    inputs -= span;
    add_chunk<true>(weights, x, part);
    add_chunk<false>(weights + 128, x + 2 * kStepBytes, part);
    add_chunk<false>(weights + 256, x + 4 * kStepBytes, part);
    add_chunk<false>(weights + 384, x + 6 * kStepBytes, part);
    weights += 512;
    x += 8 * kStepBytes;
    if (kSpan > 32) {
      ARK_ROLLED
      for (int64_t k = 32; k < span; k += 8, weights += 128, x += 2 * kStepBytes) {
        add_chunk<false>(weights, x, part);
      }
    }
    for (int r = 0; r < kTileRows; r++) dot[r] = add(dot[r], sum_dot(part[r]));
  }
  for (; inputs > 0; inputs -= 8, weights += 128, x += 2 * kStepBytes) {
    add_chunk<true>(weights, x, part);
    for (int r = 0; r < kTileRows; r++) dot[r] = add(dot[r], sum_dot(part[r]));
  }
}

ARK_KERNEL_END
