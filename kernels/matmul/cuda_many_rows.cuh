// Products for 9 tokens and more, in tiles of tokens by 128 outputs.
//
// Inputs are halved once by to_halves, not by each of the blocks that read them. A tile's inputs
// and codes come by cp.async, several slabs ahead; codes stay codes in shared memory (a quarter of
// the bytes) and are decoded into the registers that mma reads. With 4 bits a warp's part of a slab
// is 32 mma and some 150 other instructions, for which the mma leave time. A slab is 16 bytes of
// codes of each output.
#pragma once

#include "matmul/cuda_norm.cuh"

namespace ark {

constexpr int kManyOutputs = 128, kManyWarps = 8;
constexpr int kSlab = 4 * Codes::kPerWord;  // inputs
constexpr int kSlabs = kInputs / kSlab;
constexpr int kChunks = kSlab / 8;  // of 16 bytes of a token's inputs in a slab

/// Where 16 bytes of a token's row of a slab lie: 8 rows of one column are in different banks.
__device__ __forceinline__ int chunk_at(int row, int chunk) {
  constexpr int kRowsOfBanks = kChunks < 8 ? 8 / kChunks : 1;
  return row * kChunks + (chunk ^ (row / kRowsOfBanks % (kChunks < 8 ? kChunks : 8)));
}

/// Inputs as halves, in the order in which codes are decoded; block y has a token. Where a norm
/// stands in front, one block has all of it, else block x 512 inputs.
__device__ __forceinline__ void to_halves(const float* x, const float* norm, uint32_t* halves,
                                          float* sums) {
  const size_t token = blockIdx.y;
  const float* row = x + token * ARK_X_STRIDE + ARK_X_START;
  float factor = kInputScale;
  if (kNorm) {
    share_squares(own_squares(row), sums);
    __syncthreads();
    factor = norm_factor(sums);
  }
  const int step = gridDim.x * blockDim.x;
  for (int at = blockIdx.x * blockDim.x + threadIdx.x; at < kInputs / 2; at += step) {
    const int place = at % (kSlab / 2), lane = place % 4, pair = place / 4;
    const int first = at / (kSlab / 2) * kSlab + lane * Codes::kPerWord + pair;
    const int second = first + Codes::kPairs;
    float values[2] = {row[first] * factor, row[second] * factor};
    if (kNorm) values[0] *= norm[first], values[1] *= norm[second];
    halves[token * (kInputs / 2) + at] = half2_of(values[0], values[1]);
  }
}

/// A tile of kTokens by 128, of warps that have kTokens / kAcross by 128 * kAcross / 8 of it.
template <int kTokens, int kAcross, int kStages>
struct ManyRows {
  static constexpr int kWarpTokens = kTokens / kAcross;
  static constexpr int kWarpOutputs = kManyOutputs * kAcross / kManyWarps;
  static constexpr int kBands = kWarpTokens / 16, kTiles = kWarpOutputs / 8;
  static constexpr int kStage = kTokens * kChunks + kManyOutputs;  // in 16 bytes

  static constexpr int kThreads = kManyWarps * 32,
                       kFetches = (kTokens * kChunks + kThreads - 1) / kThreads;

  const uint4* halves;
  const uint32_t *codes, *scales;
  uint4* shared;  // [kStages, kStage]
  int tokens, first_token, first_output;
  // Where this thread's parts of the first slab are; 32 bits hold them, and save registers.
  uint32_t halves_at[kFetches], codes_at;

  __device__ __forceinline__ ManyRows(const uint4* all_halves, const uint32_t* all_codes,
                                      const uint32_t* all_scales, uint4* memory, int count)
      : halves(all_halves), codes(all_codes), scales(all_scales), shared(memory), tokens(count) {
    first_token = blockIdx.x * kTokens;
    first_output = blockIdx.y * kManyOutputs;
#pragma unroll
    for (int n = 0; n < kFetches; ++n) {
      const int i = threadIdx.x + n * kThreads;
      const int token = min(first_token + i / kChunks, tokens - 1);
      halves_at[n] = static_cast<uint32_t>(token) * (kInputs / 8) + i % kChunks;
    }
    const int row = row_at(min(first_output + static_cast<int>(threadIdx.x), kOutputs - 1));
    codes_at = static_cast<uint32_t>(row) * kWords;
  }

  __device__ __forceinline__ void fetch(int slab) const {
    uint4* stage = shared + slab % kStages * kStage;
    if (slab < kSlabs) {
#pragma unroll
      for (int n = 0; n < kFetches; ++n) {
        const int i = threadIdx.x + n * kThreads;
        if (kTokens * kChunks % kThreads == 0 || i < kTokens * kChunks)
          copy_async(stage + chunk_at(i / kChunks, i % kChunks),
                     halves + (halves_at[n] + slab * kChunks), true);
      }
      if (threadIdx.x < kManyOutputs)
        copy_async(stage + kTokens * kChunks + threadIdx.x, codes + (codes_at + slab * 4), true);
    }
    copies_commit();
  }

  __device__ __forceinline__ void run(float* y, const float* residual) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int own_token = warp % kAcross * kWarpTokens, own_output = warp / kAcross * kWarpOutputs;
    float sums[kBands][kTiles][4] = {};
    uint32_t ahead[kTiles];
    load_scales(0, own_output, lane, ahead);
    for (int slab = 0; slab < kStages - 1; ++slab) fetch(slab);
    // A loop whose length is known is unrolled, beyond what registers allow.
    const int slabs = unknown(kSlabs);
    for (int slab = 0; slab < slabs; ++slab) {
      copies_wait<kStages - 2>();
      __syncthreads();
      fetch(slab + kStages - 1);
      const uint4* stage = shared + slab % kStages * kStage;
      const auto* words = reinterpret_cast<const uint32_t*>(stage + kTokens * kChunks);
      uint32_t decoded[kTiles][Codes::kPairs];
#pragma unroll
      for (int j = 0; j < kTiles; ++j)
        Codes(ahead[j]).decode(words[(own_output + j * 8 + lane / 4) * 4 + lane % 4], decoded[j]);
      load_scales(slab + 1, own_output, lane, ahead);
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        uint32_t inputs[kBands][4];
#pragma unroll
        for (int i = 0; i < kBands; ++i)
          load_matrices(inputs[i],
                        stage + chunk_at(own_token + i * 16 + lane % 16, 2 * s + lane / 16));
#pragma unroll
        for (int i = 0; i < kBands; ++i)
#pragma unroll
          for (int j = 0; j < kTiles; ++j) {
            const uint32_t b[2] = {decoded[j][2 * s], decoded[j][2 * s + 1]};
            multiply(sums[i][j], inputs[i], b);
          }
      }
    }
    copies_wait<0>();
#pragma unroll
    for (int i = 0; i < kBands; ++i)
#pragma unroll
      for (int j = 0; j < kTiles; ++j)
#pragma unroll
        for (int part = 0; part < 4; ++part) {
          const int token = first_token + own_token + i * 16 + part / 2 * 8 + lane / 4;
          const int output = first_output + own_output + j * 8 + lane % 4 * 2 + part % 2;
          if (token >= tokens || output >= kOutputs) continue;
          if (!kGated)
            put(y, residual, scales, token, output, sums[i][j][part]);
          else if (j % 2 == 0)
            put_gated(y, scales, token, output, sums[i][j][part], sums[i][j + 1][part]);
        }
  }

  __device__ __forceinline__ void load_scales(int slab, int own_output, int lane,
                                              uint32_t (&to)[kTiles]) const {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      to[j] = 0;
      if (kOffset == Offset::by_row || slab >= kSlabs) continue;
      const uint32_t row = row_at(min(first_output + own_output + j * 8 + lane / 4, kOutputs - 1));
      to[j] = __ldg(scales + (row * kGroups + slab * kSlab / kGroup));
    }
  }
};

}  // namespace ark
