// What a product is made for, from macros (kernels/matmul/cuda.py).
#pragma once

#include "common/codes.cuh"

namespace ark {

constexpr int kInputs = ARK_INPUTS, kOutputs = ARK_OUTPUTS, kGroup = ARK_GROUP;
constexpr Offset kOffset = static_cast<Offset>(ARK_OFFSET);
constexpr bool kNorm = ARK_NORM, kGated = ARK_GATED;
using Codes = Group<ARK_BITS, kOffset>;

constexpr int kWords = kInputs / Codes::kPerWord;  // of a row
constexpr int kGroups = kInputs / kGroup;          // of a row
constexpr int kSteps = Codes::kPerWord / 4;        // of 16 inputs, in four words side by side

// Halves end at 65504, and products of gate and up may go beyond: inputs are taken 16 times
// smaller.
constexpr float kInputScale = 0x1p-4f;

static_assert(kInputs % (4 * Codes::kPerWord) == 0, "rows are not whole quadruples of words");
static_assert(kOffset == Offset::by_row || kGroup % (4 * Codes::kPerWord) == 0,
              "four words do not lie in one group");
static_assert(!kGated || (kOutputs % 16 == 0 && !ARK_RESIDUAL), "gate and up are not eights");
static_assert(ARK_X_STRIDE % 4 == 0 && ARK_X_START % 4 == 0, "inputs are not read by fours");

/// The row of the weight that stands at a place among the outputs.
///
/// Of a gated product those are eight rows of the gate and the eight of up that belong to them, in
/// turn: a lane then has both in the same registers of two tiles.
__device__ __forceinline__ int row_at(int place) {
  if (!kGated) return place;
  return place / 16 * 8 + place % 8 + (place % 16 < 8 ? 0 : kOutputs / 2);
}

/// The scale of a row, where it has one for all.
__device__ __forceinline__ float row_scale(const uint32_t* scales, int row) {
  if (kOffset != Offset::by_row) return 1.0f;
  return ARK_SCALE_WORDS == 1 ? low_half(scales[row])
                              : __uint_as_float(scales[row * ARK_SCALE_WORDS]);
}

/// A sum of products as the product that it stands for, but for what is added.
__device__ __forceinline__ float finished(const uint32_t* scales, int place, float sum) {
  return sum * (ARK_FACTOR / kInputScale) * row_scale(scales, row_at(place));
}

/// Writes an output of a token.
__device__ __forceinline__ void put(float* y, const float* residual, const uint32_t* scales,
                                    int token, int output, float sum) {
  float value = finished(scales, output, sum);
  if (ARK_RESIDUAL)
    value += residual[static_cast<size_t>(token) * ARK_R_STRIDE + ARK_R_START + output];
  y[static_cast<size_t>(token) * ARK_Y_STRIDE + ARK_Y_START + output] = value;
}

/// Writes what the gate at a place and the product eight places behind it become:
/// gate / (1 + exp(-gate)) * up.
__device__ __forceinline__ void put_gated(float* y, const uint32_t* scales, int token, int place,
                                          float gate_sum, float up_sum) {
  const float gate = finished(scales, place, gate_sum), up = finished(scales, place + 8, up_sum);
  // exp of a large number is infinite, and the quotient then zero.
  const float value = gate / (1 + exp2_fast(gate * -1.4426950408889634f)) * up;
  y[static_cast<size_t>(token) * ARK_Y_STRIDE + ARK_Y_START + row_at(place)] = value;
}

}  // namespace ark
