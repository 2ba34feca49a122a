// gemm_tile.h with AVX-512 without VNNI: sums of 16-bit pairs of six rows by four panels.
#pragma once

#include "panels.h"

ARK_KERNEL_BEGIN

constexpr int kTileRows = 6;
constexpr int kTilePanels = 4;
constexpr int64_t kBlockInputs = 512;
constexpr int kTileStep = 4;

ARK_INLINE void unpack_step(B first, B second, uint8_t* to) {
  memcpy(to, &first, 64);
  memcpy(to + 64, &second, 64);
}

// sum + pairs of products. By value: what a pointer leads to stays in memory. Left to itself GCC
// starts all products of a step before it adds the first, and spills the sums.
ARK_INLINE __m512i add_products(__m512i sum, __m512i codes, __m512i x) {
#if defined(ARK_SIMDE)
  return _mm512_add_epi16(sum, _mm512_maddubs_epi16(codes, x));
#else
  __m512i products;
  asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
      : "+v"(sum), "=&v"(products)
      : "v"(codes), "v"(x));
  return sum;
#endif
}

// Adds up to kSpan inputs of 4-bit or 2-bit codes to dot.
ARK_INLINE void add_span(const uint8_t* weights, int64_t apart, const int8_t* x, int64_t inputs,
                         I* dot) {
  __m512i sum[kTileRows][kTilePanels];
  for (int r = 0; r < kTileRows; r++) {
    for (int c = 0; c < kTilePanels; c++) sum[r][c] = _mm512_setzero_si512();
  }
  ARK_ROLLED
  for (int64_t k = 0; k < inputs; k += 4, weights += 64, x += kTileRows * 4) {
    __m512i codes[kTilePanels];
    for (int c = 0; c < kTilePanels; c++) codes[c] = load512(weights + c * apart);
    for (int r = 0; r < kTileRows; r++) {
      __m512i four = _mm512_set1_epi32(load_word(x + r * 4));
      for (int c = 0; c < kTilePanels; c++) sum[r][c] = add_products(sum[r][c], codes[c], four);
    }
  }
  for (int r = 0; r < kTileRows; r++) {
    for (int c = 0; c < kTilePanels; c++) {
      I* to = dot + r * kTilePanels + c;
      *to = add(*to, sum_dot({sum[r][c]}));
    }
  }
}

template <DType kCodes>
ARK_INLINE void dot_tile(const uint8_t* weights, int64_t apart, const int8_t* x, int64_t inputs,
                         I* dot) {
  if (kCodes == DType::i8) {
    // A panel at a time: the two roundabout steps that signs need leave no room for more.
    for (int c = 0; c < kTilePanels; c++) {
      I sum[kTileRows];
      for (int r = 0; r < kTileRows; r++) sum[r] = dot[r * kTilePanels + c];
      ARK_ROLLED
      for (int64_t k = 0; k < inputs; k += 4) {
        B codes = load_bytes(weights + c * apart + k * 16);
        for (int r = 0; r < kTileRows; r++) {
          sum[r] = dot_i8(sum[r], codes, x + (k * kTileRows + r * 4));
        }
      }
      for (int r = 0; r < kTileRows; r++) dot[r * kTilePanels + c] = sum[r];
    }
    return;
  }
  // A pair of products of 4-bit codes is at most 3810, of 2-bit codes 762.
  constexpr int64_t kSpan = kCodes == DType::u4 ? 32 : 128;
  for (int64_t k = 0; k < inputs; k += kSpan) {
    add_span(weights + k * 16, apart, x + k * kTileRows, smaller(kSpan, inputs - k), dot);
  }
}

ARK_KERNEL_END
