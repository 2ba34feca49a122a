// The norm in front of a product: each block sums the squares of the rows that it reads anyway.
#pragma once

#include "matmul/cuda_shape.cuh"

namespace ark {

constexpr int kNormWarps = 8, kNormThreads = kNormWarps * 32;  // of every block that normalizes

__device__ __forceinline__ float squares_of(float4 four) {
  return four.x * four.x + four.y * four.y + four.z * four.z + four.w * four.w;
}

/// The row's sum of squares to ``sums[warp]``, of this thread's part of it.
__device__ __forceinline__ void share_squares(float own, float* sums) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) own += from_lane_xor(own, step);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = own;
}

/// What inputs are multiplied by beside their weights, once all warps have shared their squares.
__device__ __forceinline__ float norm_factor(const float* sums) {
  float total = 0;
#pragma unroll
  for (int warp = 0; warp < kNormWarps; ++warp) total += sums[warp];
  return kInputScale / sqrtf(total * (1.0f / kInputs) + ARK_EPSILON);
}

/// The squares of a thread's part of a row that begins at ``x``.
__device__ __forceinline__ float own_squares(const float* x) {
  float squares = 0;
#pragma unroll 4
  for (int at = threadIdx.x * 4; at < kInputs; at += kNormThreads * 4)
    squares += squares_of(*reinterpret_cast<const float4*>(x + at));
  return squares;
}

}  // namespace ark
