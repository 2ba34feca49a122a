// Attention of few rows over many keys, dense or over chosen blocks.
//
// Decoding reads every key once, and that is all its time: a block of 4 warps has one token (or as
// many as fill 16 rows) of a key-value head, and with ARK_SPLITS the keys are shared out among so
// many blocks that all multiprocessors read. A warp takes 16 keys at a time by itself, without
// waiting for the others: it fetches the next keys while it uses values, and the next values while
// it uses keys, so that 16 to 32 KB of a block are always under way. What warps found is joined in
// shared memory, what splits found by combine().
#pragma once

#include "attention/cuda_tiles.cuh"

namespace ark {

constexpr int kSplits = ARK_SPLITS, kMost = ARK_MOST, kBlockSize = ARK_BLOCK_SIZE;
constexpr int kSplitWarps = 4, kPiece = 16;  // keys of a warp at a time
constexpr int kGroupTokens = kMost ? 1 : 16 / kPerHead;
constexpr int kPartial = 2 + kHeadDim;  // maximum, sum of weights, sums of values
using Piece = Tile<kPiece, 32>;
constexpr int kWarpWords = Piece::kKeyWords + Piece::kValueWords;

static_assert(kSpan % kBlockSize == 0 && kBlockSize % kPiece == 0, "no pieces of this block size");
static_assert(16 * kPartial <= kWarpWords, "what a warp found does not fit where its keys were");

/// The pieces of 16 keys that the rows of a block attend to.
struct Pieces {
  const int* chosen;  // null: all blocks
  int count;

  __device__ __forceinline__ Pieces(const int* blocks, int row, int head, int last_token) {
    chosen = nullptr;
    count = last_token / kPiece + 1;
    if (kMost) {
      const int* own = blocks + (static_cast<size_t>(row) * kKvHeads + head) * (1 + kMost);
      if (own[0] >= 0) {
        chosen = own + 1;
        count = min(own[0], kMost) * (kBlockSize / kPiece);
      }
    }
  }
  /// The first token of a piece; beyond the last, that of the last.
  __device__ __forceinline__ int token(int piece) const {
    piece = min(piece, count - 1);
    if (chosen == nullptr) return piece * kPiece;
    constexpr int kEach = kBlockSize / kPiece;
    return chosen[piece / kEach] * kBlockSize + piece % kEach * kPiece;
  }
};

__device__ __forceinline__ void attend_split(const float* q, const uint32_t* key,
                                             const uint32_t* value, const int* blocks, float* y,
                                             float* partials, int tokens, int past, int capacity,
                                             uint32_t (*shared)[kWarpWords]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, across = lane / 4;
  const int first = blockIdx.x * kGroupTokens;
  const int head = blockIdx.y / kSplits, split = blockIdx.y % kSplits;
  const int last = past + min(first + kGroupTokens, tokens) - 1;
  const uint32_t* own_keys = key + static_cast<size_t>(head) * capacity * kPairs;
  const uint32_t* own_values = value + static_cast<size_t>(head) * capacity * kPairs;

  const Rows rows(q, y, head, first, 0, kGroupTokens * kPerHead, tokens, past);
  const Queries queries(rows);
  const Pieces pieces(blocks, first, head, last);
  const int rounds = (pieces.count + kSplitWarps - 1) / kSplitWarps;
  const int each = (rounds + kSplits - 1) / kSplits;
  const int end = min((split + 1) * each, rounds) * kSplitWarps;
  const Piece tile(shared[warp]);
  Found found;
  int piece = split * each * kSplitWarps + warp;
  int token = pieces.token(piece), next = pieces.token(piece + kSplitWarps);
  tile.fetch_keys(own_keys, token, piece < end, lane);
  tile.fetch_values(own_values, token, last, piece < end, lane);
  for (; piece < end; piece += kSplitWarps) {
    copies_wait<1>();
    warp_sync();
    const bool more = piece + kSplitWarps < end;
    const int from = piece < pieces.count ? token : last + 1;
    const int seen[2] = {rows.position[0] - from + 1, rows.position[1] - from + 1};
    found.take(tile, queries, seen, [&] {
      warp_sync();
      tile.fetch_keys(own_keys, next, more, lane);
      copies_wait<1>();
      warp_sync();
    });
    warp_sync();
    tile.fetch_values(own_values, next, last, more, lane);
    token = next;
    next = pieces.token(piece + 2 * kSplitWarps);
  }
  copies_wait<0>();
  warp_sync();
  found.finish();

  auto* own = reinterpret_cast<float*>(shared[warp]);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float* row = own + (across + 8 * r) * kPartial;
    row[0] = found.highest[r];
    row[1] = found.weight[r];
#pragma unroll
    for (int d = 0; d < kDimTiles; ++d) {
      row[2 + d * 8 + lane % 4 * 2] = found.sums[d][2 * r];
      row[3 + d * 8 + lane % 4 * 2] = found.sums[d][2 * r + 1];
    }
  }
  __syncthreads();
  const auto* all = reinterpret_cast<const float*>(shared[0]);
  for (int i = threadIdx.x; i < kGroupTokens * kPerHead * kHeadDim; i += kSplitWarps * 32) {
    const int row = i / kHeadDim, column = i % kHeadDim, at = first + row / kPerHead;
    if (at >= tokens) break;
    const int query_head = head * kPerHead + row % kPerHead;
    float best = kNever, weight = 0, sum = 0;
#pragma unroll
    for (int w = 0; w < kSplitWarps; ++w) best = fmaxf(best, all[w * kWarpWords + row * kPartial]);
#pragma unroll
    for (int w = 0; w < kSplitWarps; ++w) {
      const float* one = all + w * kWarpWords + row * kPartial;
      const float share = exp2_fast(one[0] - best);
      weight += share * one[1];
      sum += share * one[2 + column];
    }
    if (kSplits == 1) {
      const size_t to = ARK_Y_START + query_head * kHeadDim + column;
      y[static_cast<size_t>(at) * ARK_Y_STRIDE + to] = sum / weight;
      continue;
    }
    float* to =
        partials + ((static_cast<size_t>(at) * kHeads + query_head) * kSplits + split) * kPartial;
    to[2 + column] = sum;
    if (column == 0) {
      to[0] = best;
      to[1] = weight;
    }
  }
}

/// Joins what the splits found: a block per token and query head.
__device__ __forceinline__ void combine(const float* partials, float* y) {
  const int token = blockIdx.x, head = blockIdx.y;
  const float* own = partials + (static_cast<size_t>(token) * kHeads + head) * kSplits * kPartial;
  float best = kNever;
  for (int s = 0; s < kSplits; ++s) best = fmaxf(best, own[s * kPartial]);
  for (int column = threadIdx.x; column < kHeadDim; column += blockDim.x) {
    float weight = 0, sum = 0;
#pragma unroll 8
    for (int s = 0; s < kSplits; ++s) {
      const float share = exp2_fast(own[s * kPartial] - best);
      weight += share * own[s * kPartial + 1];
      sum += share * own[s * kPartial + 2 + column];
    }
    y[static_cast<size_t>(token) * ARK_Y_STRIDE + ARK_Y_START + head * kHeadDim + column] =
        sum / weight;
  }
}

}  // namespace ark
