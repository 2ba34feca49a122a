// Tiles of a product with int8 activations: R rows by 16 outputs. Integer arithmetic is exact, and
// fp32 sums run over the groups in order, so a row's result does not depend on the tile it is in.
#pragma once

#include "activations.h"

ARK_KERNEL_BEGIN

constexpr int kPrefetchBytes = 4096;

// Adds scale * (dot - zero * sum) of one group, for R rows.
template <int R>
ARK_INLINE void add_group(const Weights& w, const Activations& a, int64_t row, int64_t panel_index,
                          int64_t g, int32_t bias, I* dot, V* total) {
  int64_t slot = panel_index * w.groups + g;
  const float* scales = a.scales + row * w.groups + g;
  const int32_t* sums = a.code_sums + row * w.groups + g;
  V scale = load_scales(w, slot);
  if (w.kind == Offsets::zero_point) {
    I zeros = add(load_zero_points(w, slot), iset(bias));
    for (int r = 0; r < R; r++) dot[r] = sub(dot[r], mul(zeros, iset(sums[r * w.groups])));
  } else {
    int32_t fixed = w.kind == Offsets::minimum ? minimum_shift(w) : symmetric_zero(w);
    for (int r = 0; r < R; r++) dot[r] = sub(dot[r], iset((fixed + bias) * sums[r * w.groups]));
  }
  for (int r = 0; r < R; r++) {
    total[r] = fma(to_float(dot[r]), mul(scale, set(scales[r * w.groups])), total[r]);
  }
  if (w.kind == Offsets::minimum) {
    V minimum = load_minimums(w, slot);
    for (int r = 0; r < R; r++) {
      float x = scales[r * w.groups] * static_cast<float>(sums[r * w.groups]);
      total[r] = fma(minimum, set(x), total[r]);
    }
  }
}

// 8 inputs of 4-bit codes.
template <int R>
ARK_INLINE void add_chunk_u4(const char* codes, const int8_t* x, int64_t inputs, D* part) {
  B low, high;
  unpack_u4(reinterpret_cast<const uint8_t*>(codes), &low, &high);
  if (R == 1) prefetch(codes + kPrefetchBytes);
  for (int r = 0; r < R; r++) {
    part[r] = dot_u4(part[r], low, x + r * inputs);
    part[r] = dot_u4(part[r], high, x + r * inputs + 4);
  }
}

// Adds groups [first, last) of one panel to totals [R][stride].
template <int R>
inline void tile_u4(const Weights& w, const Activations& a, int64_t row, int64_t panel_index,
                    int64_t first, int64_t last, float* totals, int64_t stride) {
  constexpr int kSpan = kDotLimit / 2 < 8 ? kDotLimit / 2 : 4;
  V total[R];
  for (int r = 0; r < R; r++) total[r] = load(totals + r * stride);
  const char* codes = panel(w, panel_index) + first * w.group * 8;
  const int8_t* x = a.codes + row * w.inputs + first * w.group;
  int64_t chunks = w.group / 8;
  int64_t spans = chunks / kSpan;
  for (int64_t g = first; g < last; g++) {
    I dot[R];
    for (int r = 0; r < R; r++) dot[r] = izero();
    for (int64_t s = 0; s < spans; s++) {
      D part[R];
      for (int r = 0; r < R; r++) part[r] = dot_zero();
      for (int c = 0; c < kSpan; c++) {
        add_chunk_u4<R>(codes, x, w.inputs, part);
        codes += 64;
        x += 8;
      }
      for (int r = 0; r < R; r++) dot[r] = add(dot[r], sum_dot(part[r]));
    }
    for (int64_t c = spans * kSpan; c < chunks; c++) {
      D part[R];
      for (int r = 0; r < R; r++) part[r] = dot_zero();
      add_chunk_u4<R>(codes, x, w.inputs, part);
      codes += 64;
      x += 8;
      for (int r = 0; r < R; r++) dot[r] = add(dot[r], sum_dot(part[r]));
    }
    add_group<R>(w, a, row, panel_index, g, 0, dot, total);
  }
  for (int r = 0; r < R; r++) store(totals + r * stride, total[r]);
}

template <int R>
inline void tile_i8(const Weights& w, const Activations& a, int64_t row, int64_t panel_index,
                    int64_t first, int64_t last, float* totals, int64_t stride) {
  V total[R];
  for (int r = 0; r < R; r++) total[r] = load(totals + r * stride);
  const char* codes = panel(w, panel_index) + first * w.group * 16;
  const int8_t* x = a.codes + row * w.inputs + first * w.group;
  for (int64_t g = first; g < last; g++) {
    I dot[R];
    for (int r = 0; r < R; r++) dot[r] = izero();
    for (int64_t k = 0; k < w.group; k += 4) {
      B bytes = load_bytes(codes);
      if (R == 1) prefetch(codes + kPrefetchBytes);
      for (int r = 0; r < R; r++) dot[r] = dot_i8(dot[r], bytes, x + r * w.inputs);
      codes += 64;
      x += 4;
    }
    add_group<R>(w, a, row, panel_index, g, kI8Bias, dot, total);
  }
  for (int r = 0; r < R; r++) store(totals + r * stride, total[r]);
}

ARK_KERNEL_END
