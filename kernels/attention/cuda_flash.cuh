// Dense attention of many tokens (flash attention): 64 rows of a block share tiles of 64 keys.
//
// Rows are the query heads of a key-value head for some consecutive tokens, so that 16 heads make
// 64 rows of 4 tokens, and keys are read once for all of them. Tiles are not doubled: the next keys
// come while values are used, and the next values while keys are, and two blocks share a
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
  const int warp = threadIdx.x / 32;
  // The last tokens have the most keys, and begin first.
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kFlashTokens, head = blockIdx.y;
  const int last = past + min(first + kFlashTokens, tokens) - 1;
  const uint32_t* own_keys = key + static_cast<size_t>(head) * capacity * kPairs;
  const uint32_t* own_values = value + static_cast<size_t>(head) * capacity * kPairs;

  const Rows rows(q, y, head, first, warp * 16, kFlashTokens * kPerHead, tokens, past);
  const Queries queries(rows);
  const FlashTile tile(shared);
  Found found;
  tile.fetch_keys(own_keys, 0, true, threadIdx.x);
  tile.fetch_values(own_values, 0, last, true, threadIdx.x);
  for (int from = 0; from <= last; from += kFlashKeys) {
    copies_wait<1>();
    __syncthreads();
    const int seen[2] = {rows.position[0] - from + 1, rows.position[1] - from + 1};
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
  found.store(rows);
}

}  // namespace ark
