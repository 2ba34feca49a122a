// Dense attention with an fp16 cache on tensor cores; see the headers. Made for one layer's shape
// by macros.
#define ARK_MOST 0
#define ARK_BLOCK_SIZE 64

#include "attention/cuda_flash.cuh"
#include "attention/cuda_split.cuh"

extern "C" __global__ void __launch_bounds__(ark::kSplitWarps * 32, 3)
    attend(const float* __restrict__ q, const uint32_t* __restrict__ key,
           const uint32_t* __restrict__ value, float* __restrict__ partials, int tokens, int past,
           int capacity) {
  __shared__ __align__(16) uint32_t shared[ark::kSplitWarps][ark::kWarpWords];
  ark::attend_split(q, key, value, nullptr, partials, partials, tokens, past, capacity, shared);
}

extern "C" __global__ void __launch_bounds__(128)
    combine(const float* __restrict__ partials, float* __restrict__ y) {
  ark::combine(partials, y);
}

extern "C" __global__ void __launch_bounds__(ark::kFlashWarps * 32, 2)
    flash(const float* __restrict__ q, const uint32_t* __restrict__ key,
          const uint32_t* __restrict__ value, float* __restrict__ y, int tokens, int past,
          int capacity) {
  __shared__ __align__(16) uint32_t shared[ark::FlashTile::kKeyWords + ark::FlashTile::kValueWords];
  ark::flash(q, key, value, y, tokens, past, capacity, shared);
}
