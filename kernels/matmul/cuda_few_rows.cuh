// Products for 1 to 8 tokens.
//
// Reading the weights once is all that costs time, so nothing else may come near it: the tensor
// cores take 8 tokens for the price of one (outputs are the 16 rows of mma, tokens its 8 columns),
// and a code costs about two instructions. A warp reads 64 consecutive bytes of each of 16 rows at
// a time, and has the next ones under way; the 8 warps of a block share out the inputs, which keeps
// 16 KB in flight a block and gives even 256 outputs 128 warps. The order of inputs inside mma is
// free as long as both sides have the same, so that each lane decodes 16 bytes of its own row as
// they come.
#pragma once

#include "matmul/cuda_shape.cuh"

namespace ark {

constexpr int kFewWarps = 8, kFewOutputs = 16, kFewTokens = 8;
constexpr int kQuad = 16;  // words of a row that the four lanes of a row read at a time

/// The 16 bytes of two rows that a lane has under way, and their groups' scale words.
struct Piece {
  uint4 codes[2];
  uint32_t scales[2];
};

__device__ __forceinline__ Piece load_piece(const uint32_t* codes, const uint32_t* scales,
                                            const int (&rows)[2], int word) {
  Piece piece;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    piece.codes[i] = make_uint4(0, 0, 0, 0);
    piece.scales[i] = 0;
    if (word < kWords) {
      const size_t at = static_cast<size_t>(rows[i]) * kWords + word;
      piece.codes[i] = load_once(reinterpret_cast<const uint4*>(codes + at));
      if (kOffset != Offset::by_row)
        piece.scales[i] = __ldg(scales + static_cast<size_t>(rows[i]) * kGroups +
                                word * Codes::kPerWord / kGroup);
    }
  }
  return piece;
}

/// A word's inputs of a token, in the order of pairs of codes.
__device__ __forceinline__ void load_inputs(const float* x, bool wanted,
                                            uint32_t (&pairs)[Codes::kPairs]) {
  float values[Codes::kPerWord];
#pragma unroll
  for (int i = 0; i < Codes::kPerWord; i += 4) {
    float4 four = make_float4(0, 0, 0, 0);
    if (wanted) four = *reinterpret_cast<const float4*>(x + i);
    values[i] = four.x;
    values[i + 1] = four.y;
    values[i + 2] = four.z;
    values[i + 3] = four.w;
  }
#pragma unroll
  for (int i = 0; i < Codes::kPairs; ++i)
    pairs[i] = half2_of(values[i] * kInputScale, values[i + Codes::kPairs] * kInputScale);
}

__device__ __forceinline__ void add_piece(float (&sums)[4], const Piece& piece, const float* x,
                                          bool wanted) {
  const Codes upper(piece.scales[0]), lower(piece.scales[1]);
  const uint32_t words[2][4] = {
      {piece.codes[0].x, piece.codes[0].y, piece.codes[0].z, piece.codes[0].w},
      {piece.codes[1].x, piece.codes[1].y, piece.codes[1].z, piece.codes[1].w}};
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    uint32_t above[Codes::kPairs], below[Codes::kPairs], inputs[Codes::kPairs];
    upper.decode(words[0][w], above);
    lower.decode(words[1][w], below);
    load_inputs(x + w * Codes::kPerWord, wanted, inputs);
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const uint32_t a[4] = {above[2 * s], below[2 * s], above[2 * s + 1], below[2 * s + 1]};
      const uint32_t b[2] = {inputs[2 * s], inputs[2 * s + 1]};
      multiply(sums, a, b);
    }
  }
}

__device__ __forceinline__ void few_rows(const float* x, const uint32_t* codes,
                                         const uint32_t* scales, const float* residual, float* y,
                                         int tokens, float (*partial)[kFewOutputs * kFewTokens]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first = blockIdx.x * kFewOutputs, token = lane / 4, quarter = lane % 4;
  // Rows beyond the last are computed as the last, and not written.
  const int rows[2] = {min(first + lane / 4, kOutputs - 1),
                       min(first + lane / 4 + 8, kOutputs - 1)};
  float sums[4] = {0, 0, 0, 0};
  const float* own = x + static_cast<size_t>(token) * ARK_X_STRIDE + ARK_X_START;
  int word = warp * kQuad + quarter * 4;
  Piece piece = load_piece(codes, scales, rows, word);
  for (int quad = warp * kQuad; quad < kWords; quad += kFewWarps * kQuad) {
    const int behind = word + kFewWarps * kQuad;
    const Piece next = load_piece(codes, scales, rows, behind);
    add_piece(sums, piece, own + word * Codes::kPerWord, token < tokens && word < kWords);
    piece = next;
    word = behind;
  }
  partial[warp][quarter * 2 * kFewOutputs + lane / 4] = sums[0];
  partial[warp][(quarter * 2 + 1) * kFewOutputs + lane / 4] = sums[1];
  partial[warp][quarter * 2 * kFewOutputs + lane / 4 + 8] = sums[2];
  partial[warp][(quarter * 2 + 1) * kFewOutputs + lane / 4 + 8] = sums[3];
  __syncthreads();
  const int at = threadIdx.x, output = first + at % kFewOutputs;
  if (at < kFewOutputs * tokens && output < kOutputs) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kFewWarps; ++w) sum += partial[w][at];
    put(y, residual, scales, at / kFewOutputs, output, sum);
  }
}

}  // namespace ark
