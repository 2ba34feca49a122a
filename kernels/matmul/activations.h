// Activations made ready for a product with packed weights.
#pragma once

#include "panels.h"

ARK_KERNEL_BEGIN

// What a product reads: rows of inputs, and per group (x_group) their scale and sum.
//
// An int8 code is as coarse as the largest input of its group makes it, and in language models a
// few groups hold inputs many times larger than the rest. Where the step is more than kCoarseStep
// of the row's root mean square, a second int8 code holds what the first left over, in steps of
// 1/kFineSteps of it. About one group in nine is coarse, and most of the error was theirs.
struct Activations {
  const float* x;  // fp32 rows, stride apart; not read with int8 codes
  int64_t stride;
  int8_t* codes;       // int8 rows of inputs, code_stride apart, or null
  int8_t* fine_codes;  // the same; 0 where the group is not coarse
  int64_t code_stride;
  float* scales;       // [rows][groups]: x is about scale * (code + fine_code / kFineSteps)
  int32_t* code_sums;  // [rows][groups]
  int32_t* fine_sums;  // [rows][groups]
  uint8_t* coarse;     // [rows][groups]: 1 where there are fine codes
  float* sums;         // [rows][groups] of fp32 activations
};
constexpr float kCoarseStep = 0.04f;
constexpr float kFineSteps = 254.0f;

ARK_INLINE void store_codes(int8_t* codes, I values, int64_t n) {
  if (n >= kLanes) {
    store_i8(codes, values);
    return;
  }
  int8_t bytes[kLanes];
  store_i8(bytes, values);
  memcpy(codes, bytes, static_cast<size_t>(n));
}

// One group: scale = max|x| / 127, codes to the nearest, halves to even. at is its place in the
// arrays of sums and begin in those of codes.
inline void quantize_group(const Activations& a, const float* x, int64_t n, int64_t begin,
                           int64_t at, float coarse_step) {
  V high = zero();
  for (int64_t i = 0; i < n; i += kLanes) high = max(high, abs(load_upto(x + i, n - i)));
  float step = largest(high) / 127.0f;
  bool coarse = step > coarse_step;
  V divisor = set(step > 0 ? step : 1.0f);
  I total = izero();
  I fine_total = izero();
  for (int64_t i = 0; i < n; i += kLanes) {
    V quotient = div(load_upto(x + i, n - i), divisor);
    I code = round_to_int(quotient);
    total = add(total, code);
    store_codes(a.codes + begin + i, code, n - i);
    if (coarse) {
      I fine = round_to_int(mul(sub(quotient, to_float(code)), set(kFineSteps)));
      fine_total = add(fine_total, fine);
      store_codes(a.fine_codes + begin + i, fine, n - i);
    }
  }
  if (!coarse) memset(a.fine_codes + begin, 0, static_cast<size_t>(n));
  a.scales[at] = step;
  a.code_sums[at] = sum(total);
  a.fine_sums[at] = sum(fine_total);
  a.coarse[at] = coarse;
}

// The sum over a group of the dequantized activations.
ARK_INLINE float dequantized_sum(const Activations& a, int64_t at) {
  float codes = static_cast<float>(a.code_sums[at]) +
                static_cast<float>(a.fine_sums[at]) * (1.0f / kFineSteps);
  return a.scales[at] * codes;
}

inline float root_mean_square(const float* x, int64_t n) {
  V total = zero();
  for (int64_t i = 0; i < n; i += kLanes) {
    V v = load_upto(x + i, n - i);
    total = fma(v, v, total);
  }
  return __builtin_sqrtf(sum(total) / static_cast<float>(n));
}

inline float sum_of(const float* x, int64_t n) {
  V total = zero();
  for (int64_t i = 0; i < n; i += kLanes) total = add(total, load_upto(x + i, n - i));
  return sum(total);
}

// Fills codes, scales and sums of one row, which is x, or its fp32 sums.
inline void prepare_row(const Weights& w, const Activations& a, const float* x, int64_t row) {
  float coarse_step = a.codes ? kCoarseStep * root_mean_square(x, w.inputs) : 0;
  for (int64_t g = 0; g < w.x_groups; g++) {
    int64_t at = row * w.x_groups + g;
    const float* group = x + g * w.x_group;
    if (a.codes) {
      quantize_group(a, group, w.x_group, row * a.code_stride + g * w.x_group, at, coarse_step);
    } else {
      a.sums[at] = sum_of(group, w.x_group);
    }
  }
}

ARK_KERNEL_END
