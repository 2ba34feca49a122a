// matmul for tensor cores: halves in, float32 sums; see the headers. Made for one weight by macros.
#include "matmul/cuda_few_rows.cuh"
#include "matmul/cuda_many_rows.cuh"

namespace {

// As many slabs ahead as 40 KB hold, of the largest tile.
constexpr int kStages = ARK_BITS == 2 ? 2 : 4;
using Band = ark::ManyRows<32, 1, kStages>;
using Tile = ark::ManyRows<128, 2, kStages>;

template <bool kNormed>
struct Row {
  using Inputs = ark::OneRow;
};
template <>
struct Row<true> {
  using Inputs = ark::NormedRow;
};
using OneRow = Row<ark::kNorm>::Inputs;

}  // namespace

extern "C" __global__ void __launch_bounds__(ark::kFewWarps * 32)
    one_row(const float* __restrict__ x, const uint32_t* __restrict__ codes,
            const uint32_t* __restrict__ scales, const float* __restrict__ norm,
            const float* residual, float* y, int tokens) {
  __shared__ __align__(16) uint32_t words[OneRow::kShared];
  __shared__ float sums[1][ark::kNormWarps];
  __shared__ float partial[ark::kFewWarps][ark::kFewOutputs * ark::kFewTokens];
  ark::few_rows<OneRow>(x, codes, scales, norm, residual, y, tokens, {words, sums}, partial);
}

extern "C" __global__ void __launch_bounds__(ark::kFewWarps * 32)
    few_rows(const float* __restrict__ x, const uint32_t* __restrict__ codes,
             const uint32_t* __restrict__ scales, const float* __restrict__ norm,
             const float* residual, float* y, int tokens) {
  __shared__ float sums[ark::kFewTokens][ark::kNormWarps];
  __shared__ float partial[ark::kFewWarps][ark::kFewOutputs * ark::kFewTokens];
  ark::few_rows<ark::FewRows>(x, codes, scales, norm, residual, y, tokens, {nullptr, sums},
                              partial);
}

extern "C" __global__ void __launch_bounds__(ark::kNormThreads)
    to_halves(const float* __restrict__ x, const float* __restrict__ norm,
              uint32_t* __restrict__ halves) {
  __shared__ float sums[ark::kNormWarps];
  ark::to_halves(x, norm, halves, sums);
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
