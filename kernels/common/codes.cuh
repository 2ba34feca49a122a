// Codes of weights (arkinfer/tir/matrix.py) as numbers in halves.
#pragma once

#include "common/instructions.cuh"

namespace ark {

/// Where the zero of a group lies; ``by_row`` leaves the scale, which a whole row shares, to the
/// caller.
enum class Offset { symmetric, zero_point, minimum, by_row };

/// A half of a whole number from 1 to 2047.
__host__ __device__ constexpr uint32_t half_of_integer(uint32_t number) {
  uint32_t power = 0;
  while (number >> (power + 1) != 0) ++power;
  return ((power + 15) << 10) + ((number << 10 >> power) - 1024);
}
__host__ __device__ constexpr uint32_t both_halves(uint32_t half) { return half * 0x10001u; }

/// What the codes of a group become numbers with.
///
/// A code between the bits of the half 1024 is the half 1024 + code, and 2^b bits higher up 1024 +
/// code * 2^b: one fused multiply-add takes the 1024, the power and the zero point away, exactly.
/// What is left to round is the product with the scale.
template <int kBits, Offset kOffset>
struct Group {
  static constexpr int kPerWord = 32 / kBits, kPairs = kPerWord / 2;
  static constexpr int kPlaces = 8 / kBits;  // of a code below bit 8, before the word is shifted
  static constexpr uint32_t kMiddle = kBits == 2 ? 1 : 1u << (kBits - 1);
  static constexpr bool kFixed = kOffset == Offset::symmetric || kOffset == Offset::by_row;

  uint32_t scale, minimum, bias[kPlaces];

  /// From a group's scale word; not looked at where a row has one scale.
  __device__ __forceinline__ explicit Group(uint32_t word) {
    scale = permute(word, 0, 0x1010);
    const uint32_t second = permute(word, 0, 0x3232);
    minimum = second;
#pragma unroll
    for (int j = 0; j < kPlaces; ++j) {
      const uint32_t base = 1024u >> (kBits * j);
      const uint32_t zero = kFixed ? kMiddle : 0;
      const uint32_t fixed = both_halves(0x8000u | half_of_integer(base + zero));
      bias[j] = kOffset == Offset::zero_point ? half2_sub(fixed, second) : fixed;
    }
  }

  /// Pair i holds codes i and i + kPairs of the word; without kScaled less their zero alone,
  /// exactly.
  template <bool kScaled = true>
  __device__ __forceinline__ void decode(uint32_t word, uint32_t (&pairs)[kPairs]) const {
    constexpr uint32_t kMask = (1u << kBits) - 1;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int j = i % kPlaces;
      const uint32_t moved = word >> (8 * (i / kPlaces));
      const uint32_t raised = and_or(moved, both_halves(kMask << (kBits * j)), 0x64006400u);
      const uint32_t power = both_halves(static_cast<uint32_t>(15 - kBits * j) << 10);
      const uint32_t code = half2_fma(raised, power, bias[j]);
      if (!kScaled || kOffset == Offset::by_row)
        pairs[i] = code;
      else if (kOffset == Offset::minimum)
        pairs[i] = half2_fma(code, scale, minimum);
      else
        pairs[i] = half2_mul(code, scale);
    }
  }
};

}  // namespace ark
