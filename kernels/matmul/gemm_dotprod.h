// gemm_tile.h with sdot: one load brings four inputs of all four rows of a tile, and each sdot
// takes its row's by lane.
#pragma once

#include "panels.h"

ARK_KERNEL_BEGIN

constexpr int kTileRows = 4;
constexpr int kTilePanels = 1;
constexpr int64_t kBlockInputs = 1024;
constexpr int kTileStep = 4;

ARK_INLINE void unpack_step(B first, B second, uint8_t* to) {
  memcpy(to, &first, 64);
  memcpy(to + 64, &second, 64);
}

template <int kRow>
ARK_INLINE void add_row(B codes, int8x16_t x, I* sum) {
  sum->a = vdotq_laneq_s32(sum->a, codes.a, x, kRow);
  sum->b = vdotq_laneq_s32(sum->b, codes.b, x, kRow);
  sum->c = vdotq_laneq_s32(sum->c, codes.c, x, kRow);
  sum->d = vdotq_laneq_s32(sum->d, codes.d, x, kRow);
}

template <DType kCodes>
ARK_INLINE void dot_tile(const uint8_t* weights, int64_t, const int8_t* x, int64_t inputs, I* dot) {
  I s0 = dot[0], s1 = dot[1], s2 = dot[2], s3 = dot[3];
  ARK_ROLLED
  for (int64_t k = 0; k < inputs; k += 4, weights += 64, x += 16) {
    B codes = load_bytes(weights);
    int8x16_t four = vld1q_s8(x);
    add_row<0>(codes, four, &s0);
    add_row<1>(codes, four, &s1);
    add_row<2>(codes, four, &s2);
    add_row<3>(codes, four, &s3);
  }
  dot[0] = s0;
  dot[1] = s1;
  dot[2] = s2;
  dot[3] = s3;
}

ARK_KERNEL_END
