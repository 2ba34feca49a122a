// Scores of windows for block selection: 16 query heads by 64 compressed keys of a warp on tensor
// cores.
//
// Compressed keys lie like keys in an fp16 cache and are read once per block of warps, whose warps
// have a token each; for one token a block is one warp, so that 128K tokens of context are 128
// blocks per head. Which blocks are chosen hangs on these numbers, so queries go in as sums of two
// halves: what is left of rounding is that of float32 sums. All logarithms are to base 2.
#pragma once

#include "attention/cuda_tiles.cuh"

namespace ark {

constexpr int kWindow = ARK_KERNEL_SIZE, kStride = ARK_KERNEL_STRIDE;
constexpr int kBasis = ARK_EXACT ? 1 : 4;  // how much longer the windows are that normalise
constexpr int kTile = 64;                  // windows
constexpr int kKeyTiles = kTile / 8;
constexpr int kTileWords = Tile<kTile, 32>::kKeyWords;
// Without a coarse window there is nothing to normalise by, and all scores are zero.
constexpr int kLeast = ARK_EXACT ? 1 : 4 * kWindow;

/// Whole windows in that many tokens.
__device__ __forceinline__ int windows_before(int length, int window, int stride) {
  return max(length - (window - stride), 0) / stride;
}
/// Places of a cache of compressed keys beside one of ``capacity`` tokens.
__device__ __forceinline__ int window_capacity(int capacity, int stride) {
  return (capacity / stride + kSpan) / kSpan * kSpan;
}
__device__ __forceinline__ bool is_dense(int position) { return position + 1 < ARK_DENSE_LEN; }

/// Scores [16 heads, 64 windows] of a token, as mma leaves them; those not seen are kNever.
__device__ __forceinline__ void score_tile(const float* q, const uint32_t* keys, int seen,
                                           float (&scores)[kKeyTiles][4]) {
  const int lane = threadIdx.x % 32, across = lane / 4, along = lane % 4;
  constexpr float kScale = ARK_SCALE * 1.44269504f;
  using T = Tile<kTile, 32>;
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    uint32_t coarse[4], fine[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = across + i % 2 * 8, at = s * 16 + i / 2 * 8 + along * 2;
      const bool there = row < kPerHead;
      const float first = there ? q[row * kHeadDim + at] * kScale : 0;
      const float second = there ? q[row * kHeadDim + at + 1] * kScale : 0;
      coarse[i] = half2_of(first, second);
      fine[i] = half2_of(first - low_half(coarse[i]), second - high_half(coarse[i]));
    }
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) {
      const uint32_t* at = keys + (s * 8 + along) * T::kKeyRow + n * 8 + across;
      const uint32_t b[2] = {at[0], at[4 * T::kKeyRow]};
      multiply(scores[n], fine, b);
      multiply(scores[n], coarse, b);
    }
  }
#pragma unroll
  for (int n = 0; n < kKeyTiles; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (n * 8 + along * 2 + i % 2 >= seen || across + i / 2 * 8 >= kPerHead)
        scores[n][i] = kNever;
}

/// What the blocks of a launch of windows have in common: x a tile, y a group of tokens and a head.
template <int kTokens>
struct Place {
  int token, head, first;  // of this warp, of the block, of the tile
  const float* q;
  bool any;  // whether a token of the block looks at scores

  __device__ __forceinline__ Place(const float* queries, int tokens, int past) {
    const int band = blockIdx.y / kKvHeads * kTokens;
    head = blockIdx.y % kKvHeads;
    first = blockIdx.x * kTile;
    token = band + threadIdx.x / 32;
    any = !is_dense(past + min(band + kTokens, tokens) - 1);
    q = queries + static_cast<size_t>(min(token, tokens - 1)) * ARK_Q_STRIDE + ARK_Q_START +
        head * kPerHead * kHeadDim;
  }
  __device__ __forceinline__ void fetch(const uint32_t* cache, int capacity,
                                        uint32_t* shared) const {
    const uint32_t* own = cache + static_cast<size_t>(head) * capacity * kPairs;
    Tile<kTile, kTokens * 32>(shared).fetch_keys(own, first, true, threadIdx.x);
    copies_wait<0>();
    __syncthreads();
  }
};

/// Of a tile of the windows that normalise: each head's highest score and the sum of all relative
/// to it.
template <int kTokens>
__device__ __forceinline__ void normalize(const float* q, const uint32_t* basis, float2* parts,
                                          int tokens, int past, int capacity, uint32_t* shared) {
  const Place<kTokens> place(q, tokens, past);
  constexpr int kSpanOf = kStride * kBasis;
  const int places = window_capacity(capacity, kSpanOf);
  if (!place.any || place.first >= places) return;
  place.fetch(basis, places, shared);
  const int seen = windows_before(past + place.token + 1, kWindow * kBasis, kSpanOf) - place.first;
  if (place.token >= tokens || seen <= 0) return;
  float scores[kKeyTiles][4] = {};
  score_tile(place.q, shared, seen, scores);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float best = kNever, sum = 0;
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n)
      best = fmaxf(best, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
    best = fmaxf(best, from_lane_xor(best, 1));
    best = fmaxf(best, from_lane_xor(best, 2));
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n)
      sum += exp2_fast(scores[n][2 * r] - best) + exp2_fast(scores[n][2 * r + 1] - best);
    sum += from_lane_xor(sum, 1);
    sum += from_lane_xor(sum, 2);
    const int row = threadIdx.x % 32 / 4 + 8 * r;
    if (threadIdx.x % 4 == 0 && row < kPerHead) {
      const size_t at = static_cast<size_t>(place.token) * kHeads + place.head * kPerHead + row;
      parts[at * (places / kTile) + blockIdx.x] = make_float2(best, sum);
    }
  }
}

/// The logarithm of what a head's scores are divided by, from the parts of all tiles.
__device__ __forceinline__ float normalizer(const float2* parts, int count) {
  float best = kNever, sum = 0;
  for (int i = threadIdx.x % 4; i < count; i += 4) best = fmaxf(best, parts[i].x);
  best = fmaxf(best, from_lane_xor(best, 1));
  best = fmaxf(best, from_lane_xor(best, 2));
  for (int i = threadIdx.x % 4; i < count; i += 4) sum += parts[i].y * exp2_fast(parts[i].x - best);
  sum += from_lane_xor(sum, 1);
  sum += from_lane_xor(sum, 2);
  return best + log2_fast(sum);
}

/// Of a tile of windows: the logarithm of the sum over a group's heads of normalised scores.
template <int kTokens>
__device__ __forceinline__ void score_windows(const float* q, const uint32_t* fine,
                                              const float2* parts, float* windows, int tokens,
                                              int past, int capacity, uint32_t* shared) {
  const Place<kTokens> place(q, tokens, past);
  const int places = window_capacity(capacity, kStride);
  if (!place.any || place.first >= places) return;
  place.fetch(fine, places, shared);
  const int length = past + place.token + 1;
  const int seen = windows_before(length, kWindow, kStride) - place.first;
  if (place.token >= tokens || seen <= 0) return;
  float scores[kKeyTiles][4] = {};
  score_tile(place.q, shared, seen, scores);

  const int basis_tiles = window_capacity(capacity, kStride * kBasis) / kTile;
  const int count = windows_before(length, kWindow * kBasis, kStride * kBasis);
  float less[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = min(static_cast<int>(threadIdx.x) % 32 / 4 + 8 * r, kPerHead - 1);
    const size_t at = static_cast<size_t>(place.token) * kHeads + place.head * kPerHead + row;
    less[r] = normalizer(parts + at * basis_tiles, (count + kTile - 1) / kTile);
  }
  float* to =
      windows + (static_cast<size_t>(place.token) * kKvHeads + place.head) * places + place.first;
#pragma unroll
  for (int n = 0; n < kKeyTiles; ++n)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float upper = scores[n][j] - less[0], lower = scores[n][2 + j] - less[1];
      const bool both = threadIdx.x % 32 / 4 + 8 < kPerHead, one = threadIdx.x % 32 / 4 < kPerHead;
      float best = both ? fmaxf(upper, lower) : one ? upper : kNever;
      best = fmaxf(best, from_lane_xor(best, 4));
      best = fmaxf(best, from_lane_xor(best, 8));
      best = fmaxf(best, from_lane_xor(best, 16));
      float sum = (one ? exp2_fast(upper - best) : 0) + (both ? exp2_fast(lower - best) : 0);
      sum += from_lane_xor(sum, 4);
      sum += from_lane_xor(sum, 8);
      sum += from_lane_xor(sum, 16);
      const int window = n * 8 + threadIdx.x % 4 * 2 + j;
      if (threadIdx.x % 32 / 4 == 0 && window < seen)
        to[window] = length < kLeast ? kNever : best + log2_fast(sum);
    }
}

}  // namespace ark
