// Attention of many tokens, each over its chosen blocks: tokens side by side share what they read.
//
// Neighbours choose mostly the same blocks, those of the local window always. The four warps of a
// block have a token each, with its query heads as rows; together they walk through all blocks that
// any of them chose, in order, and each warp passes over those that its token did not choose. So
// keys come up to four times less often from the second cache, which is what bounds this, than
// token by token.
#pragma once

#include "attention/cuda_flash.cuh"
#include "attention/cuda_split.cuh"

namespace ark {

constexpr int kManyTokens = kFlashWarps, kNoBlock = 1 << 20;

/// The blocks that a token chose, in order; -1 as their count stands for all.
struct Chosen {
  const int* next;
  int left, now;  // now: the block that comes next, kNoBlock behind the last
  bool all;

  __device__ __forceinline__ Chosen(const int* blocks, int token, int tokens, int head, int past) {
    next = blocks + (static_cast<size_t>(min(token, tokens - 1)) * kKvHeads + head) * (1 + kMost);
    all = *next < 0;
    left = token >= tokens ? 0 : all ? (past + token) / kBlockSize + 1 : min(*next, kMost);
    now = -1;
    advance();
  }
  __device__ __forceinline__ void advance() {
    ++next;
    now = left-- <= 0 ? kNoBlock : all ? now + 1 : *next;
  }
};

__device__ __forceinline__ void attend_many(const float* q, const uint32_t* key,
                                            const uint32_t* value, const int* blocks, float* y,
                                            int tokens, int past, int capacity, uint32_t* shared) {
  static_assert(kBlockSize == kFlashKeys, "a chosen block is no tile");
  const int warp = threadIdx.x / 32, head = blockIdx.y, first = blockIdx.x * kManyTokens;
  const int last = past + min(first + kManyTokens, tokens) - 1;
  const uint32_t* own_keys = key + static_cast<size_t>(head) * capacity * kPairs;
  const uint32_t* own_values = value + static_cast<size_t>(head) * capacity * kPairs;
  const Rows rows(q, y, head, first + warp, 0, kPerHead, tokens, past);
  const Queries queries(rows);

  // Each lane follows the list of one token, so that warps know of all without a word.
  Chosen list(blocks, first + threadIdx.x % kManyTokens, tokens, head, past);
  // The next block of the walk; ``own`` becomes whether this warp's token chose it.
  const auto step = [&](bool& own) {
    int block = min(list.now, from_lane_xor(list.now, 1));
    block = min(block, from_lane_xor(block, 2));
    const bool mine = list.now == block && block != kNoBlock;
    own = ballot(mine) >> warp & 1;
    if (mine) list.advance();
    return block;
  };

  const FlashTile tile(shared);
  Found found;
  bool own, own_next;
  int block = step(own);
  tile.fetch_keys(own_keys, block * kBlockSize, block != kNoBlock, threadIdx.x);
  tile.fetch_values(own_values, block * kBlockSize, last, block != kNoBlock, threadIdx.x);
  while (block != kNoBlock) {
    const int next = step(own_next);
    copies_wait<1>();
    __syncthreads();
    const auto between = [&] {
      __syncthreads();
      tile.fetch_keys(own_keys, next * kBlockSize, next != kNoBlock, threadIdx.x);
      copies_wait<1>();
      __syncthreads();
    };
    if (own) {
      const int from = block * kBlockSize;
      const int seen[2] = {rows.position[0] - from + 1, rows.position[1] - from + 1};
      found.take(tile, queries, seen, between);
    } else {
      between();
    }
    __syncthreads();
    tile.fetch_values(own_values, next * kBlockSize, last, next != kNoBlock, threadIdx.x);
    block = next;
    own = own_next;
  }
  copies_wait<0>();
  found.store(rows);
}

}  // namespace ark
