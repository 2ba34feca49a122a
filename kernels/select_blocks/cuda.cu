// InfLLM v2 block selection with fp16 caches: normalizers, scores of windows, choice; see the
// headers.
#include "select_blocks/cuda_choice.cuh"

namespace {

constexpr int kMany = 4;  // tokens of a block, where there are many

}  // namespace

extern "C" __global__ void __launch_bounds__(1 * 32)
    normalize_few(const float* __restrict__ q, const uint32_t* __restrict__ basis,
                  float2* __restrict__ parts, int tokens, int past, int capacity) {
  __shared__ __align__(16) uint32_t shared[ark::kTileWords];
  ark::normalize<1>(q, basis, parts, tokens, past, capacity, shared);
}

extern "C" __global__ void __launch_bounds__(1 * 32)
    score_few(const float* __restrict__ q, const uint32_t* __restrict__ fine,
              const float2* __restrict__ parts, float* __restrict__ windows, int tokens, int past,
              int capacity) {
  __shared__ __align__(16) uint32_t shared[ark::kTileWords];
  ark::score_windows<1>(q, fine, parts, windows, tokens, past, capacity, shared);
}

extern "C" __global__ void __launch_bounds__(kMany * 32)
    normalize_many(const float* __restrict__ q, const uint32_t* __restrict__ basis,
                   float2* __restrict__ parts, int tokens, int past, int capacity) {
  __shared__ __align__(16) uint32_t shared[ark::kTileWords];
  ark::normalize<kMany>(q, basis, parts, tokens, past, capacity, shared);
}

extern "C" __global__ void __launch_bounds__(kMany * 32)
    score_many(const float* __restrict__ q, const uint32_t* __restrict__ fine,
               const float2* __restrict__ parts, float* __restrict__ windows, int tokens, int past,
               int capacity) {
  __shared__ __align__(16) uint32_t shared[ark::kTileWords];
  ark::score_windows<kMany>(q, fine, parts, windows, tokens, past, capacity, shared);
}

extern "C" __global__ void __launch_bounds__(ark::kChooseLanes)
    choose(const float* __restrict__ windows, uint32_t* keys, int* __restrict__ y, int past,
           int capacity) {
  __shared__ ark::Choice shared;
  ark::choose(windows, keys, y, past, capacity, shared);
}
