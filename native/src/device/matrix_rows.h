// Where the rows of a weight lie on a device (docs/bundle.md), and what their scales are.
#pragma once

#include <cstdint>
#include <cstring>

#include "device/launch_plan.h"
#include "halves.h"

namespace ark {

inline uint32_t word_at(const char* data, int64_t index) {
  uint32_t word;
  std::memcpy(&word, data + index * 4, 4);
  return word;
}

inline float word_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// The scale of a group, and its second number: zero point, middle or minimum. The bits are those
// of a half where a word holds both numbers, else of a float32.
struct MatrixGroup {
  uint32_t scale_bits, second_bits;
  bool halves;

  static float number(uint32_t bits, bool half) {
    return half ? half_to_float(static_cast<uint16_t>(bits)) : word_as_float(bits);
  }
  float scale() const { return number(scale_bits, halves); }
  float second() const { return number(second_bits, halves); }
};

// One row: its codes or numbers, and its scales (null for numbers).
struct MatrixRow {
  const char* codes;
  const char* scales;

  MatrixGroup group(const LaunchMatrix& matrix, int64_t index) const {
    if (matrix.scale_words == 2) {
      return {word_at(scales, index * 2), word_at(scales, index * 2 + 1), false};
    }
    uint32_t word = word_at(scales, index);
    return {word & 0xFFFF, word >> 16, true};
  }
};

// weights is where the ranges of the plan begin.
inline MatrixRow matrix_row(const LaunchMatrix& matrix, const LaunchPlan& plan, const char* weights,
                            int64_t row) {
  size_t part = 0;
  while (row >= matrix.parts[part].first + matrix.parts[part].outputs) part++;
  const LaunchMatrix::Part& rows = matrix.parts[part];
  const int64_t local = row - rows.first;
  const char* codes =
      weights + plan.weights[rows.codes].offset + local * (matrix.inputs * matrix.bits / 8);
  if (!matrix.has_scales()) return {codes, nullptr};
  const int64_t groups = matrix.inputs / matrix.group;
  return {codes,
          weights + plan.weights[rows.scales].offset + local * groups * matrix.scale_words * 4};
}

}  // namespace ark
