// Dense attention of many tokens (flash attention): 64 rows of a block share tiles of 64 keys.
//
// Rows are the query heads of a key-value head for some consecutive tokens, so that 16 heads make
// 64 rows of 4 tokens, and keys are read once for all of them. Tiles are not doubled: the next keys
// come while values are used, and the next values while keys are, and three blocks share a
// multiprocessor.
#pragma once

#include "attention/cuda_tiles.cuh"

namespace ark {

constexpr int kFlashWarps = 4, kFlashKeys = 64;
constexpr int kFlashTokens = 16 * kFlashWarps / kPerHead;
using FlashTile = Tile<kFlashKeys, kFlashWarps * 32>;

__device__ __forceinline__ void flash(const float* q, const uint32_t* key, const uint32_t* value,
                                      float* y, int tokens, int past, int capacity,
                                      uint32_t* shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  // The last tokens have the most keys, and begin first.
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kFlashTokens, head = blockIdx.y;
  const int last = past + min(first + kFlashTokens, tokens) - 1;
  const uint32_t* own_keys = key + static_cast<size_t>(head) * capacity * kPairs;
  const uint32_t* own_values = value + static_cast<size_t>(head) * capacity * kPairs;

  const float* rows[2];
  float* outputs[2];
  int position[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = warp * 16 + lane / 4 + 8 * r, token = first + row / kPerHead;
    const bool there = row < kFlashTokens * kPerHead && token < tokens;
    const size_t column = (head * kPerHead + row % kPerHead) * kHeadDim;
    rows[r] =
        there ? q + static_cast<size_t>(token) * ARK_Q_STRIDE + ARK_Q_START + column : nullptr;
    outputs[r] =
        there ? y + static_cast<size_t>(token) * ARK_Y_STRIDE + ARK_Y_START + column : nullptr;
    position[r] = there ? past + token : -1;
  }
  Queries queries;
  queries.load(rows[0], rows[1]);

  const FlashTile tile(shared);
  Found found;
  tile.fetch_keys(own_keys, 0, true, threadIdx.x);
  tile.fetch_values(own_values, 0, last, true, threadIdx.x);
  for (int from = 0; from <= last; from += kFlashKeys) {
    copies_wait<1>();
    __syncthreads();
    const int seen[2] = {position[0] - from + 1, position[1] - from + 1};
    const int next = from + kFlashKeys;
    found.take(tile, queries, seen, [&] {
      __syncthreads();
      tile.fetch_keys(own_keys, next, next <= last, threadIdx.x);
      copies_wait<1>();
      __syncthreads();
    });
    __syncthreads();
    tile.fetch_values(own_values, next, last, next <= last, threadIdx.x);
  }
  copies_wait<0>();
  found.finish();
#pragma unroll
  for (int r = 0; r < 2; ++r)
    if (outputs[r] != nullptr) {
      const float share = 1 / found.weight[r];
#pragma unroll
      for (int d = 0; d < kDimTiles; ++d) {
        outputs[r][d * 8 + lane % 4 * 2] = found.sums[d][2 * r] * share;
        outputs[r][d * 8 + lane % 4 * 2 + 1] = found.sums[d][2 * r + 1] * share;
      }
    }
}

}  // namespace ark
