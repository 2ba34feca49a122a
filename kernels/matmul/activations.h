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
  int8_t* fine_codes;  // the same; of coarse groups only
  int64_t code_stride;
  float* scales;       // [rows][groups]: x is about scale * (code + fine_code / kFineSteps)
  int32_t* code_sums;  // [rows][groups]
  int32_t* fine_sums;  // [rows][groups]
  uint8_t* coarse;     // [rows][groups]: 1 where there are fine codes
  float* sums;  // [rows][groups] of the activations as codes have them, for minimums, or in fp32
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

// scale = max|x| / 127.
ARK_INLINE float quantization_step(const float* x, int64_t n) {
  V high = zero();
  for (int64_t i = 0; i < n; i += kLanes) high = max(high, abs(load_upto(x + i, n - i)));
  return largest(high) / 127.0f;
}
ARK_INLINE V step_divisor(float step) { return set(step > 0 ? step : 1.0f); }

// Codes of one group to the nearest, halves to even; their sum.
ARK_INLINE int32_t quantize(const float* x, int64_t n, float step, int8_t* codes) {
  V divisor = step_divisor(step);
  I total = izero();
  for (int64_t i = 0; i < n; i += kLanes) {
    I code = round_to_int(div(load_upto(x + i, n - i), divisor));
    total = add(total, code);
    store_codes(codes + i, code, n - i);
  }
  return sum(total);
}

// The same of what those codes leave over.
ARK_INLINE int32_t quantize_rest(const float* x, int64_t n, float step, int8_t* codes) {
  V divisor = step_divisor(step);
  I total = izero();
  for (int64_t i = 0; i < n; i += kLanes) {
    V quotient = div(load_upto(x + i, n - i), divisor);
    V rest = sub(quotient, to_float(round_to_int(quotient)));
    I code = round_to_int(mul(rest, set(kFineSteps)));
    total = add(total, code);
    store_codes(codes + i, code, n - i);
  }
  return sum(total);
}

// Groups of n inputs of one row. Coarse ones, which nobody can foresee, come last: the others need
// not wait for them.
ARK_INLINE void quantize_groups(const Activations& a, const float* x, int64_t n, int64_t groups,
                                int64_t row, float coarse_step) {
  // Copies, for a store of bytes might change the originals as far as the compiler knows.
  int8_t* codes = a.codes + row * a.code_stride;
  int8_t* fine_codes = a.fine_codes + row * a.code_stride;
  float* scales = a.scales + row * groups;
  int32_t* code_sums = a.code_sums + row * groups;
  int32_t* fine_sums = a.fine_sums + row * groups;
  uint8_t* coarse = a.coarse + row * groups;
  for (int64_t g = 0; g < groups; g++) scales[g] = quantization_step(x + g * n, n);
  for (int64_t g = 0; g < groups; g++) {
    code_sums[g] = quantize(x + g * n, n, scales[g], codes + g * n);
    fine_sums[g] = 0;
    coarse[g] = scales[g] > coarse_step;
  }
  for (int64_t g = 0; g < groups; g++) {
    if (coarse[g]) fine_sums[g] = quantize_rest(x + g * n, n, scales[g], fine_codes + g * n);
  }
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

// Fills what a product reads of one row, which is x: codes with their scales and sums, or fp32
// sums.
inline void prepare_row(const Weights& w, const Activations& a, const float* x, int64_t row) {
  if (!a.codes) {
    for (int64_t g = 0; g < w.x_groups; g++) {
      a.sums[row * w.x_groups + g] = sum_of(x + g * w.x_group, w.x_group);
    }
    return;
  }
  float coarse_step = kCoarseStep * root_mean_square(x, w.inputs);
  // The smallest groups are worth loops of known length.
  if (w.x_group == 32) {
    quantize_groups(a, x, 32, w.x_groups, row, coarse_step);
  } else {
    quantize_groups(a, x, w.x_group, w.x_groups, row, coarse_step);
  }
  if (w.kind != Offsets::minimum) return;
  int64_t first = row * w.x_groups;
  for (int64_t at = first; at < first + w.x_groups; at++) a.sums[at] = dequantized_sum(a, at);
}

ARK_KERNEL_END
