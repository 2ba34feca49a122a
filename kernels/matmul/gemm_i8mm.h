// gemm_tile.h with smmla, which multiplies two rows by two outputs over eight inputs.
#pragma once

#include "panels.h"

ARK_KERNEL_BEGIN

// Three pairs of rows by eight pairs of outputs: 24 sums of 32 registers.
constexpr int kTileRows = 6;
constexpr int kTilePanels = 1;
constexpr int64_t kBlockInputs = 1024;
constexpr int kTileStep = 8;

// Four outputs: inputs 0..3 and 4..7 come side by side.
ARK_INLINE void unpack_outputs(int8x16_t first, int8x16_t second, uint8_t* to) {
  int32x4_t low = vreinterpretq_s32_s8(first);
  int32x4_t high = vreinterpretq_s32_s8(second);
  vst1q_u8(to, vreinterpretq_u8_s32(vzip1q_s32(low, high)));
  vst1q_u8(to + 16, vreinterpretq_u8_s32(vzip2q_s32(low, high)));
}
ARK_INLINE void unpack_step(B first, B second, uint8_t* to) {
  unpack_outputs(first.a, second.a, to);
  unpack_outputs(first.b, second.b, to + 32);
  unpack_outputs(first.c, second.c, to + 64);
  unpack_outputs(first.d, second.d, to + 96);
}

// Adds two sums [row][output] of outputs 0, 1 and 2, 3 to four outputs of each row.
ARK_INLINE void add_pairs(int32x4_t left, int32x4_t right, int32x4_t* even, int32x4_t* odd) {
  int64x2_t a = vreinterpretq_s64_s32(left);
  int64x2_t b = vreinterpretq_s64_s32(right);
  *even = vaddq_s32(*even, vreinterpretq_s32_s64(vzip1q_s64(a, b)));
  *odd = vaddq_s32(*odd, vreinterpretq_s32_s64(vzip2q_s64(a, b)));
}

template <DType kCodes>
ARK_INLINE void dot_tile(const uint8_t* weights, int64_t, const int8_t* x, int64_t inputs, I* dot) {
  constexpr int kPairs = kTileRows / 2;
  int32x4_t sum[kPairs][8];
  for (int r = 0; r < kPairs; r++) {
    for (int i = 0; i < 8; i++) sum[r][i] = vdupq_n_s32(0);
  }
  const int8_t* codes = reinterpret_cast<const int8_t*>(weights);
  ARK_ROLLED
  for (int64_t k = 0; k < inputs; k += 8, codes += 128, x += kTileRows * 8) {
    int8x16_t rows[kPairs];
    for (int r = 0; r < kPairs; r++) rows[r] = vld1q_s8(x + r * 16);
    for (int i = 0; i < 8; i++) {
      int8x16_t outputs = vld1q_s8(codes + i * 16);
      for (int r = 0; r < kPairs; r++) sum[r][i] = vmmlaq_s32(sum[r][i], rows[r], outputs);
    }
  }
  for (int r = 0; r < kPairs; r++) {
    I* even = &dot[2 * r];
    I* odd = &dot[2 * r + 1];
    add_pairs(sum[r][0], sum[r][1], &even->a, &odd->a);
    add_pairs(sum[r][2], sum[r][3], &even->b, &odd->b);
    add_pairs(sum[r][4], sum[r][5], &even->c, &odd->c);
    add_pairs(sum[r][6], sum[r][7], &even->d, &odd->d);
  }
}

ARK_KERNEL_END
