// Products for 1 to 8 tokens.
//
// Reading the weights once is all that costs time, so nothing else may come near it: the tensor
// cores take 8 tokens for the price of one (outputs are the 16 rows of mma, tokens its 8 columns),
// and a 4-bit code costs about three instructions of a lane. A warp reads 64 consecutive bytes of
// each of 16 rows at a time, and has the next ones under way; the 8 warps of a block share out the
// inputs, which keeps 16 KB in flight a block and gives even 256 outputs 128 warps. The order of
// inputs inside mma is free as long as both sides have the same, so that each lane decodes 16 bytes
// of its own row as they come.
#pragma once

#include "matmul/cuda_norm.cuh"

namespace ark {

constexpr int kFewWarps = 8, kFewOutputs = 16, kFewTokens = 8;
constexpr int kQuad = 16;  // words of a row that the four lanes of a row read at a time
// Where those lie in one group, sums of codes are scaled instead of codes.
constexpr bool kByQuad = (kOffset == Offset::symmetric || kOffset == Offset::zero_point) &&
                         kGroup % (kQuad * Codes::kPerWord) == 0;

/// The 16 bytes of two rows that a lane has under way, and their groups' scale words.
struct Piece {
  uint4 codes[2];
  uint32_t scales[2];

  __device__ __forceinline__ Piece(const uint32_t* from, const uint32_t* scale_words,
                                   const int (&rows)[2], int word) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      codes[i] = make_uint4(0, 0, 0, 0);
      scales[i] = 0;
      if (word < kWords) {
        const size_t row = rows[i];
        codes[i] = load_once(reinterpret_cast<const uint4*>(from + row * kWords + word));
        if (kOffset != Offset::by_row)
          scales[i] = __ldg(scale_words + row * kGroups + word * Codes::kPerWord / kGroup);
      }
    }
  }
};

/// What the blocks of all kinds of inputs have: words that hold halves, and a norm's sums.
struct Memory {
  uint32_t* words;
  float (*sums)[kNormWarps];  // of each token
};

/// The pairs of a lane's word ``w`` of a quad, which the lanes of column 0 have to give.
__device__ __forceinline__ void read_row(const uint32_t* quad, int w,
                                         uint32_t (&pairs)[Codes::kPairs]) {
  const bool mine = threadIdx.x % 32 < 4;
  const uint32_t* from = quad + (w * 4 + threadIdx.x % 4) * Codes::kPairs;
#pragma unroll
  for (int i = 0; i < Codes::kPairs; i += 2) {
    uint2 two = make_uint2(0, 0);
    if (mine) two = *reinterpret_cast<const uint2*>(from + i);
    pairs[i] = two.x;
    pairs[i + 1] = two.y;
  }
}

/// Where a quad has its word: lane k of a row has words 4k to 4k + 3, and lanes read their words
/// side by side.
__device__ __forceinline__ int place_of(int word) { return word % 4 * 4 + word / 4; }

/// The inputs of one token for a warp's 16 words. Each lane halves some of them for the four lanes
/// that have the token's column, by way of shared memory: alone, those would keep the others
/// waiting.
struct OneRow {
  static constexpr int kOfWarp = kQuad * Codes::kPairs, kShared = kFewWarps * kOfWarp;
  static constexpr int kEach = kOfWarp / 32;  // pairs of a lane

  const float* x;
  uint32_t* shared;
  uint32_t own[kEach];

  __device__ __forceinline__ OneRow(const float* rows, const float*, int, Memory memory)
      : x(rows + ARK_X_START), shared(memory.words + threadIdx.x / 32 * kOfWarp) {}

  __device__ __forceinline__ void fetch(int quad) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int at = i * 32 + threadIdx.x % 32, word = quad + at / Codes::kPairs;
      const float* from = x + word * Codes::kPerWord + at % Codes::kPairs;
      const float first = word < kWords ? __ldg(from) : 0;
      const float second = word < kWords ? __ldg(from + Codes::kPairs) : 0;
      own[i] = half2_of(first * kInputScale, second * kInputScale);
    }
  }
  /// What was fetched becomes what is read.
  __device__ __forceinline__ void turn(int) {
    warp_sync();
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int at = i * 32 + threadIdx.x % 32, word = at / Codes::kPairs;
      shared[place_of(word) * Codes::kPairs + at % Codes::kPairs] = own[i];
    }
    warp_sync();
  }
  __device__ __forceinline__ void read(int w, uint32_t (&pairs)[Codes::kPairs]) const {
    read_row(shared, w, pairs);
  }
};

/// The values of a word of inputs; zeros where it is not there.
__device__ __forceinline__ void read_word(const float* from, int word, bool there,
                                          float (&values)[Codes::kPerWord]) {
#pragma unroll
  for (int i = 0; i < Codes::kPerWord; i += 4) {
    float4 four = make_float4(0, 0, 0, 0);
    if (there) four = *reinterpret_cast<const float4*>(from + word * Codes::kPerWord + i);
    values[i] = four.x;
    values[i + 1] = four.y;
    values[i + 2] = four.z;
    values[i + 3] = four.w;
  }
}

/// The inputs of one token that are normalized: the block halves all of them at once, while the
/// first codes are under way.
struct NormedRow {
  static constexpr int kPadded = (kWords + kQuad - 1) / kQuad * kQuad;
  static constexpr int kShared = kPadded * Codes::kPairs;
  static constexpr int kOwn = (kPadded + kNormThreads - 1) / kNormThreads;  // words of a thread

  uint32_t* shared;
  const uint32_t* now = nullptr;

  __device__ __forceinline__ NormedRow(const float* rows, const float* norm, int, Memory memory)
      : shared(memory.words) {
    const float* x = rows + ARK_X_START;
    float own[kOwn][Codes::kPerWord], squares = 0;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int word = i * kNormThreads + threadIdx.x;
      read_word(x, word, word < kWords, own[i]);
#pragma unroll
      for (int j = 0; j < Codes::kPerWord; ++j) squares += own[i][j] * own[i][j];
    }
    share_squares(squares, memory.sums[0]);
    __syncthreads();
    const float factor = norm_factor(memory.sums[0]);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int word = i * kNormThreads + threadIdx.x;
      if (word >= kPadded) continue;
      float weight[Codes::kPerWord];
      read_word(norm, word, word < kWords, weight);
#pragma unroll
      for (int j = 0; j < Codes::kPerWord; ++j) weight[j] *= own[i][j] * factor;
      uint32_t* to = shared + (word / kQuad * kQuad + place_of(word % kQuad)) * Codes::kPairs;
#pragma unroll
      for (int j = 0; j < Codes::kPairs; j += 2)
        *reinterpret_cast<uint2*>(to + j) =
            make_uint2(half2_of(weight[j], weight[j + Codes::kPairs]),
                       half2_of(weight[j + 1], weight[j + 1 + Codes::kPairs]));
    }
    __syncthreads();
  }

  __device__ __forceinline__ void fetch(int) {}
  __device__ __forceinline__ void turn(int quad) { now = shared + quad * Codes::kPairs; }
  __device__ __forceinline__ void read(int w, uint32_t (&pairs)[Codes::kPairs]) const {
    read_row(now, w, pairs);
  }
};

/// The inputs of up to 8 tokens, which lanes read for themselves: lane / 4 is a token.
struct FewRows {
  static constexpr int kShared = 1;

  const float *x, *norm;
  bool there;
  float factor = kInputScale;
  int word = 0;

  __device__ __forceinline__ FewRows(const float* rows, const float* weights, int tokens,
                                     Memory memory)
      : norm(weights) {
    const int token = threadIdx.x % 32 / 4;
    x = rows + static_cast<size_t>(token) * ARK_X_STRIDE + ARK_X_START;
    there = token < tokens;
    if (!kNorm) return;
    for (int t = 0; t < tokens; ++t)
      share_squares(own_squares(rows + static_cast<size_t>(t) * ARK_X_STRIDE + ARK_X_START),
                    memory.sums[t]);
    __syncthreads();
    if (there) factor = norm_factor(memory.sums[token]);
  }

  __device__ __forceinline__ void fetch(int) {}
  __device__ __forceinline__ void turn(int quad) { word = quad + threadIdx.x % 4 * 4; }
  __device__ __forceinline__ void read(int w, uint32_t (&pairs)[Codes::kPairs]) const {
    float values[Codes::kPerWord];
    // The words of a lane are four side by side, all there or none.
    read_word(x, word + w, there && word < kWords, values);
    if (kNorm) {
      float weights[Codes::kPerWord];
      read_word(norm, word + w, word < kWords, weights);
#pragma unroll
      for (int i = 0; i < Codes::kPerWord; ++i) values[i] *= weights[i];
    }
    const float by = kNorm ? factor : kInputScale;
#pragma unroll
    for (int i = 0; i < Codes::kPairs; ++i)
      pairs[i] = half2_of(values[i] * by, values[i + Codes::kPairs] * by);
  }
};

/// Adds the products of a piece with a warp's inputs.
template <class Inputs>
__device__ __forceinline__ void add_piece(float (&sums)[4], const Piece& piece,
                                          const Inputs& inputs) {
  const Codes upper(piece.scales[0]), lower(piece.scales[1]);
  const uint32_t words[2][4] = {
      {piece.codes[0].x, piece.codes[0].y, piece.codes[0].z, piece.codes[0].w},
      {piece.codes[1].x, piece.codes[1].y, piece.codes[1].z, piece.codes[1].w}};
  float own[4] = {0, 0, 0, 0};
  float (&to)[4] = kByQuad ? own : sums;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    uint32_t above[Codes::kPairs], below[Codes::kPairs], x[Codes::kPairs];
    upper.template decode<!kByQuad>(words[0][w], above);
    lower.template decode<!kByQuad>(words[1][w], below);
    inputs.read(w, x);
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const uint32_t a[4] = {above[2 * s], below[2 * s], above[2 * s + 1], below[2 * s + 1]};
      const uint32_t b[2] = {x[2 * s], x[2 * s + 1]};
      multiply(to, a, b);
    }
  }
  if (kByQuad) {
    const float scales[2] = {low_half(piece.scales[0]), low_half(piece.scales[1])};
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] += own[i] * scales[i / 2];
  }
}

template <class Inputs>
__device__ __forceinline__ void few_rows(const float* x, const uint32_t* codes,
                                         const uint32_t* scales, const float* norm,
                                         const float* residual, float* y, int tokens,
                                         Memory memory,
                                         float (*partial)[kFewOutputs * kFewTokens]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, quarter = lane % 4;
  const int first = blockIdx.x * kFewOutputs;
  // Rows beyond the last are computed as the last, and not written.
  const int rows[2] = {row_at(min(first + lane / 4, kOutputs - 1)),
                       row_at(min(first + lane / 4 + 8, kOutputs - 1))};
  float sums[4] = {0, 0, 0, 0};
  int quad = warp * kQuad;
  Piece piece(codes, scales, rows, quad + quarter * 4);
  Inputs inputs(x, norm, tokens, memory);
  inputs.fetch(quad);
#pragma unroll 2
  while (quad < kWords) {
    inputs.turn(quad);
    quad += kFewWarps * kQuad;
    const Piece next(codes, scales, rows, quad + quarter * 4);
    inputs.fetch(quad);
    add_piece(sums, piece, inputs);
    piece = next;
  }
  partial[warp][quarter * 2 * kFewOutputs + lane / 4] = sums[0];
  partial[warp][(quarter * 2 + 1) * kFewOutputs + lane / 4] = sums[1];
  partial[warp][quarter * 2 * kFewOutputs + lane / 4 + 8] = sums[2];
  partial[warp][(quarter * 2 + 1) * kFewOutputs + lane / 4 + 8] = sums[3];
  __syncthreads();
  constexpr int kWritten = kGated ? kFewOutputs / 2 : kFewOutputs;  // of a token
  const int token = threadIdx.x / kWritten, own = threadIdx.x % kWritten;
  if (token >= tokens || first + own >= kOutputs) return;
  float sum = 0, up = 0;
#pragma unroll
  for (int w = 0; w < kFewWarps; ++w) {
    sum += partial[w][token * kFewOutputs + own];
    if (kGated) up += partial[w][token * kFewOutputs + own + 8];
  }
  if (kGated)
    put_gated(y, scales, token, first + own, sum, up);
  else
    put(y, residual, scales, token, first + own, sum);
}

}  // namespace ark
