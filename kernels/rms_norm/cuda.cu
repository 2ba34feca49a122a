// rms_norm: a block of 256 threads per token, which reads its numbers once and keeps them in
// registers.
#include "common/instructions.cuh"

namespace {

constexpr int kColumns = ARK_COLUMNS, kLanes = 256;
// Four numbers at a time, where every row begins at a multiple of 16 bytes.
constexpr bool kFours =
    (ARK_COLUMNS | ARK_X_STRIDE | ARK_X_START | ARK_Y_STRIDE | ARK_Y_START) % 4 == 0;
constexpr int kWidth = kFours ? 4 : 1;
constexpr int kEach = (kColumns / kWidth + kLanes - 1) / kLanes;

struct Numbers {
  float of[kWidth] = {};

  __device__ __forceinline__ void load(const float* at) {
    if constexpr (kFours) {
      const float4 four = *reinterpret_cast<const float4*>(at);
      of[0] = four.x, of[1] = four.y, of[2] = four.z, of[3] = four.w;
    } else {
      of[0] = *at;
    }
  }
  __device__ __forceinline__ void store(float* at) const {
    if constexpr (kFours)
      *reinterpret_cast<float4*>(at) = make_float4(of[0], of[1], of[2], of[3]);
    else
      *at = of[0];
  }
};

__device__ __forceinline__ float sum_of_warp(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += ark::from_lane_xor(value, step);
  return value;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    rms_norm(const float* __restrict__ x, const float* __restrict__ weight, float* __restrict__ y) {
  __shared__ float sums[kLanes / 32];
  const float* from = x + static_cast<size_t>(blockIdx.x) * ARK_X_STRIDE + ARK_X_START;
  float* to = y + static_cast<size_t>(blockIdx.x) * ARK_Y_STRIDE + ARK_Y_START;
  Numbers own[kEach];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int at = (i * kLanes + threadIdx.x) * kWidth;
    if (at < kColumns) own[i].load(from + at);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) squares += own[i].of[j] * own[i].of[j];
  }
  squares = sum_of_warp(squares);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = squares;
  __syncthreads();
  const float total = sum_of_warp(threadIdx.x % 32 < kLanes / 32 ? sums[threadIdx.x % 32] : 0);
  const float factor = 1 / sqrtf(total * (1.0f / kColumns) + ARK_EPSILON);
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int at = (i * kLanes + threadIdx.x) * kWidth;
    if (at >= kColumns) continue;
    Numbers scale;
    scale.load(weight + at);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) own[i].of[j] *= factor * scale.of[j];
    own[i].store(to + at);
  }
}
