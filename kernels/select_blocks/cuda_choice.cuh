// From scores of windows to chosen blocks: a block of 256 threads per token and key-value head.
//
// The lowest key that is taken is found 8 bits at a time, by counting; then the chosen are written
// in order, 256 blocks of tokens at a time.
#pragma once

#include "select_blocks/cuda_scores.cuh"

namespace ark {

constexpr int kChooseWarps = 8, kChooseLanes = kChooseWarps * 32;
constexpr int kBlock = ARK_BLOCK_SIZE, kRatio = kBlock / kStride;
constexpr bool kGenerationB = ARK_GENERATION == 1;
constexpr int kMost = ARK_TOPK + ARK_LOCAL_BLOCKS;
constexpr int kWanted = kGenerationB ? kMost : ARK_TOPK;
// The first of a query's own blocks, counted back from its last.
constexpr int kReach = kGenerationB ? ARK_LOCAL_BLOCKS : ARK_LOCAL_BLOCKS - 1;
constexpr uint32_t kForced = 0xFF800000u;  // the key of +infinity

/// What the threads of a block share.
struct Choice {
  int counts[256];
  int warps[2][kChooseWarps];
  uint32_t lowest;
  int left;
};

/// Larger floats give larger integers; 0 is left for blocks that cannot be chosen.
__device__ __forceinline__ uint32_t sort_key(float value) {
  const uint32_t bits = __float_as_uint(value);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/// The key of a block: its best window's, unless it is taken or left out whatever its score.
__device__ __forceinline__ uint32_t block_key(const float* windows, int count, int block,
                                              int last) {
  // Generation A attends to its window apart from what it chooses by score; B lets it take part.
  if (block >= last - kReach) return kGenerationB ? kForced : 0;
  if (block < ARK_INIT_BLOCKS) return kForced;
  uint32_t best = 0;
  const int first = max(kRatio * block - 1, 0), behind = min(count, kRatio * block + kRatio);
  for (int i = first; i < behind; ++i) best = max(best, sort_key(windows[i]));
  return best;
}

/// Finds the lowest key taken, and how many of its equals are.
__device__ __forceinline__ void find_lowest(const uint32_t* keys, int blocks, Choice& shared) {
  uint32_t prefix = 0;
  int left = kWanted;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += kChooseLanes) shared.counts[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < blocks; i += kChooseLanes)
      if (shift == 24 || (keys[i] ^ prefix) >> (shift + 8) == 0)
        atomicAdd(&shared.counts[keys[i] >> shift & 255], 1);
    __syncthreads();
    if (threadIdx.x < 32) {
      // A lane has 8 digits, the first lane the highest.
      const int lane = threadIdx.x, top = 255 - lane * 8;
      int own = 0;
      for (int i = 0; i < 8; ++i) own += shared.counts[top - i];
      int before = own;
      for (int step = 1; step < 32; step *= 2) {
        const int other = from_lane(before, max(lane - step, 0));
        if (lane >= step) before += other;
      }
      const bool enough = before >= left;
      before -= own;
      const uint32_t lanes = ballot(enough);
      if (lanes == 0 && lane == 0) {
        shared.lowest = 0;  // fewer blocks than wanted
        shared.left = -1;
      }
      if (enough && (lanes & ((1u << lane) - 1)) == 0) {
        int digit = top;
        while (before + shared.counts[digit] < left) before += shared.counts[digit--];
        shared.lowest = prefix | static_cast<uint32_t>(digit) << shift;
        shared.left = left - before;
      }
    }
    __syncthreads();
    prefix = shared.lowest;
    left = shared.left;
    __syncthreads();
    if (left < 0) return;
  }
}

/// How many of the block's threads before this one say so; ``total`` of all.
__device__ __forceinline__ int rank(bool mine, int (&warps)[kChooseWarps], int& total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t bits = ballot(mine);
  if (lane == 0) warps[warp] = __popc(bits);
  __syncthreads();
  int before = __popc(bits & ((1u << lane) - 1));
  total = 0;
  for (int w = 0; w < kChooseWarps; ++w) {
    if (w < warp) before += warps[w];
    total += warps[w];
  }
  return before;
}

__device__ __forceinline__ void choose(const float* windows, uint32_t* keys, int* y, int past,
                                       int capacity, Choice& shared) {
  const int token = blockIdx.x, head = blockIdx.y, position = past + token;
  int* row = y + static_cast<size_t>(token) * ARK_Y_STRIDE + ARK_Y_START + head * (1 + kMost);
  int taken = 0;
  if (!is_dense(position)) {
    const size_t pair = static_cast<size_t>(token) * kKvHeads + head;
    windows += pair * window_capacity(capacity, kStride);
    keys += pair * ((capacity + kBlock - 1) / kBlock);
    const int last = position / kBlock, blocks = last + 1;
    const int count = windows_before(position + 1, kWindow, kStride);
    for (int i = threadIdx.x; i < blocks; i += kChooseLanes)
      keys[i] = block_key(windows, count, i, last);
    // From here on each thread reads what it wrote itself.
    find_lowest(keys, blocks, shared);
    const uint32_t lowest = shared.lowest;
    int left = shared.left;
    for (int first = 0; first < blocks; first += kChooseLanes) {
      const int block = first + threadIdx.x;
      const uint32_t key = block < blocks ? keys[block] : 0;
      const bool equal = key == lowest && key != 0;
      int equals, takes;
      const int before = rank(equal, shared.warps[0], equals);
      const bool own = !kGenerationB && block < blocks && block >= last - kReach;
      const bool take = key > lowest || (equal && before < left) || own;
      const int at = taken + rank(take, shared.warps[1], takes);
      if (take && at < kMost) row[1 + at] = block;
      left -= equals;
      taken += takes;
    }
  }
  taken = min(taken, kMost);
  if (threadIdx.x == 0) row[0] = is_dense(position) ? -1 : taken;
  for (int i = taken + threadIdx.x; i < kMost; i += kChooseLanes) row[1 + i] = -1;
}

}  // namespace ark
