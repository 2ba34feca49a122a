// matmul for tensor cores: halves in, float32 sums; see the headers. Made for one weight by macros.
#include "matmul/cuda_few_rows.cuh"
#include "matmul/cuda_many_rows.cuh"

namespace {

// As many slabs ahead as 40 KB hold, of the largest tile.
constexpr int kStages = ARK_BITS == 2 ? 2 : 4;
using Band = ark::ManyRows<32, 1, kStages>;
using Tile = ark::ManyRows<128, 2, kStages>;

}  // namespace

extern "C" __global__ void __launch_bounds__(ark::kFewWarps * 32)
    one_row(const float* __restrict__ x, const uint32_t* __restrict__ codes,
            const uint32_t* __restrict__ scales, const float* residual, float* y, int tokens) {
  __shared__ __align__(16) uint32_t shared[ark::kFewWarps][ark::OneRow::kShared];
  __shared__ float partial[ark::kFewWarps][ark::kFewOutputs * ark::kFewTokens];
  ark::few_rows<ark::OneRow>(x, codes, scales, residual, y, tokens, shared, partial);
}

extern "C" __global__ void __launch_bounds__(ark::kFewWarps * 32)
    few_rows(const float* __restrict__ x, const uint32_t* __restrict__ codes,
             const uint32_t* __restrict__ scales, const float* residual, float* y, int tokens) {
  __shared__ __align__(16) uint32_t shared[ark::kFewWarps][ark::FewRows::kShared];
  __shared__ float partial[ark::kFewWarps][ark::kFewOutputs * ark::kFewTokens];
  ark::few_rows<ark::FewRows>(x, codes, scales, residual, y, tokens, shared, partial);
}

extern "C" __global__ void __launch_bounds__(256)
    to_halves(const float* __restrict__ x, uint32_t* __restrict__ halves) {
  ark::to_halves(x, halves);
}

extern "C" __global__ void __launch_bounds__(256, 2)
    band(const uint4* __restrict__ halves, const uint32_t* __restrict__ codes,
         const uint32_t* __restrict__ scales, const float* residual, float* y, int tokens) {
  __shared__ uint4 shared[kStages * Band::kStage];
  Band(halves, codes, scales, shared, tokens).run(y, residual);
}

extern "C" __global__ void __launch_bounds__(256, 2)
    tile(const uint4* __restrict__ halves, const uint32_t* __restrict__ codes,
         const uint32_t* __restrict__ scales, const float* residual, float* y, int tokens) {
  __shared__ uint4 shared[kStages * Tile::kStage];
  Tile(halves, codes, scales, shared, tokens).run(y, residual);
}
