// RMS normalization of one row: a kernel of its own, and in front of a product.
#pragma once

#include "simd.h"

ARK_KERNEL_BEGIN

// y = x / sqrt(mean(x²) + epsilon) * weight, n values each; y may be x.
inline void normalize(const float* x, const float* weight, int64_t n, float epsilon, float* y) {
  V squares = zero();
  for (int64_t i = 0; i < n; i += kLanes) {
    V v = load_upto(x + i, n - i);
    squares = fma(v, v, squares);
  }
  float mean = sum(squares) / static_cast<float>(n);
  V factor = set(1.0f / __builtin_sqrtf(mean + epsilon));
  for (int64_t i = 0; i < n; i += kLanes) {
    V v = mul(load_upto(x + i, n - i), factor);
    store_upto(y + i, mul(v, load_upto(weight + i, n - i)), n - i);
  }
}

ARK_KERNEL_END
