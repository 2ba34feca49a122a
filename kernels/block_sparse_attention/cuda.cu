// Block-sparse attention with an fp16 cache on tensor cores (attention/cuda_split.cuh).
#include "attention/cuda_split.cuh"
#if ARK_BLOCK_SIZE == 64
#include "block_sparse_attention/cuda_many.cuh"
#endif

extern "C" __global__ void __launch_bounds__(ark::kSplitWarps * 32, 3)
    attend(const float* __restrict__ q, const uint32_t* __restrict__ key,
           const uint32_t* __restrict__ value, const int* __restrict__ blocks,
           float* __restrict__ to, int tokens, int past, int capacity) {
  __shared__ __align__(16) uint32_t shared[ark::kSplitWarps][ark::kWarpWords];
  // With splits to partials, without them to y.
  ark::attend_split(q, key, value, blocks, to, to, tokens, past, capacity, shared);
}

extern "C" __global__ void __launch_bounds__(128)
    combine(const float* __restrict__ partials, float* __restrict__ y) {
  ark::combine(partials, y);
}

#if ARK_BLOCK_SIZE == 64
extern "C" __global__ void __launch_bounds__(ark::kFlashWarps * 32, 2)
    attend_many(const float* __restrict__ q, const uint32_t* __restrict__ key,
                const uint32_t* __restrict__ value, const int* __restrict__ blocks,
                float* __restrict__ y, int tokens, int past, int capacity) {
  __shared__ __align__(16) uint32_t shared[ark::FlashTile::kKeyWords + ark::FlashTile::kValueWords];
  ark::attend_many(q, key, value, blocks, y, tokens, past, capacity, shared);
}
#endif
