// Activations made ready for a product with packed weights.
#pragma once

#include "panels.h"

ARK_KERNEL_BEGIN

// What a product reads: rows of inputs, and per weight group their scale and sum.
struct Activations {
  const float* x;       // fp32 rows, stride apart
  int64_t stride;
  int8_t* codes;        // int8 rows [rows][inputs], or null
  float* scales;        // [rows][groups]: x is about scale * code
  int32_t* code_sums;   // [rows][groups]
  float* sums;          // [rows][groups] of fp32 activations
};

// One group: scale = max|x| / 127, codes to the nearest, halves to even.
inline void quantize_group(const float* x, int64_t n, int8_t* codes, float* scale, int32_t* sum_out) {
  V high = zero();
  for (int64_t i = 0; i < n; i += kLanes) high = max(high, abs(load_upto(x + i, n - i)));
  float step = largest(high) / 127.0f;
  *scale = step;
  V divisor = set(step > 0 ? step : 1.0f);
  I total = izero();
  for (int64_t i = 0; i < n; i += kLanes) {
    I code = round_to_int(div(load_upto(x + i, n - i), divisor));
    total = add(total, code);
    int8_t bytes[kLanes];
    store_i8(bytes, code);
    memcpy(codes + i, bytes, static_cast<size_t>(smaller(kLanes, n - i)));
  }
  *sum_out = sum(total);
}

inline float sum_of(const float* x, int64_t n) {
  V total = zero();
  for (int64_t i = 0; i < n; i += kLanes) total = add(total, load_upto(x + i, n - i));
  return sum(total);
}

// Fills codes, scales and sums of one row, or its fp32 sums.
inline void prepare_row(const Weights& w, const Activations& a, int64_t row) {
  const float* x = a.x + row * a.stride;
  for (int64_t g = 0; g < w.groups; g++) {
    int64_t at = row * w.groups + g;
    const float* group = x + g * w.group;
    if (a.codes) {
      quantize_group(group, w.group, a.codes + row * w.inputs + g * w.group, &a.scales[at],
                     &a.code_sums[at]);
    } else {
      a.sums[at] = sum_of(group, w.group);
    }
  }
}

ARK_KERNEL_END
