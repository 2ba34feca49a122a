// Tiles of a product with fp32 activations: R rows by P panels of 16 outputs. Every output sums its
// inputs in order, first within a group and then over the groups, whatever tile it is in.
#pragma once

#include "activations.h"

ARK_KERNEL_BEGIN

constexpr int kFloatBlock = 128;  // inputs per partial sum where weights have no groups

template <int J>
ARK_INLINE V code_u4(I word) {
  return to_float(bits_and(shr<8 * (J % 4) + 4 * (J / 4)>(word), 15));
}
template <int J>
ARK_INLINE V code_i8(I word) {
  return to_float(sar<24>(shl<24 - 8 * J>(word)));
}

template <int R, int P>
ARK_INLINE void add_input(const V* w, const float* x, int64_t stride, V* part) {
  for (int r = 0; r < R; r++) {
    V broadcast = set(x[r * stride]);
    for (int p = 0; p < P; p++) part[r * P + p] = fma(broadcast, w[p], part[r * P + p]);
  }
}
template <int R, int P, int J>
ARK_INLINE void add_u4(const I* words, const float* x, int64_t stride, V* part) {
  V w[P];
  for (int p = 0; p < P; p++) w[p] = code_u4<J>(words[p]);
  add_input<R, P>(w, x + J, stride, part);
}
template <int R, int P, int J>
ARK_INLINE void add_i8(const I* words, const float* x, int64_t stride, V* part) {
  V w[P];
  for (int p = 0; p < P; p++) w[p] = code_i8<J>(words[p]);
  add_input<R, P>(w, x + J, stride, part);
}

// The unscaled products of one group, [R][P]: codes are those of panel 0, panels are bytes apart.
template <int R, int P>
ARK_INLINE void group_u4(const char* codes, int64_t bytes, int64_t inputs, const float* x,
                         int64_t stride, V* part) {
  for (int64_t k = 0; k < inputs; k += 8, codes += 64, x += 8) {
    I words[P];
    for (int p = 0; p < P; p++) {
      words[p] = load_words(codes + p * bytes);
      prefetch(codes + p * bytes + 4096);
    }
    add_u4<R, P, 0>(words, x, stride, part);
    add_u4<R, P, 1>(words, x, stride, part);
    add_u4<R, P, 2>(words, x, stride, part);
    add_u4<R, P, 3>(words, x, stride, part);
    add_u4<R, P, 4>(words, x, stride, part);
    add_u4<R, P, 5>(words, x, stride, part);
    add_u4<R, P, 6>(words, x, stride, part);
    add_u4<R, P, 7>(words, x, stride, part);
  }
}
template <int R, int P>
ARK_INLINE void group_i8(const char* codes, int64_t bytes, int64_t inputs, const float* x,
                         int64_t stride, V* part) {
  for (int64_t k = 0; k < inputs; k += 4, codes += 64, x += 4) {
    I words[P];
    for (int p = 0; p < P; p++) {
      words[p] = load_words(codes + p * bytes);
      prefetch(codes + p * bytes + 4096);
    }
    add_i8<R, P, 0>(words, x, stride, part);
    add_i8<R, P, 1>(words, x, stride, part);
    add_i8<R, P, 2>(words, x, stride, part);
    add_i8<R, P, 3>(words, x, stride, part);
  }
}

template <int R, int P>
inline void tile_codes(const Weights& w, const Activations& a, int64_t row, int64_t panel_index,
                       int64_t first, int64_t last, float* totals, int64_t stride) {
  bool u4 = w.type == DType::u4;
  int64_t bytes = panel_bytes(w) * pair_distance(w);
  int64_t group_bytes = w.group * (u4 ? 8 : 16);
  for (int64_t g = first; g < last; g++) {
    const char* codes = panel(w, panel_index) + g * group_bytes;
    const float* x = a.x + row * a.stride + g * w.group;
    V part[R * P];
    for (int i = 0; i < R * P; i++) part[i] = zero();
    if (u4) {
      group_u4<R, P>(codes, bytes, w.group, x, a.stride, part);
    } else {
      group_i8<R, P>(codes, bytes, w.group, x, a.stride, part);
    }
    for (int p = 0; p < P; p++) {
      int64_t slot = (panel_index + p * pair_distance(w)) * w.groups + g;
      V scale = load_scales(w, slot);
      V zero_code = w.kind == Offsets::zero_point ? to_float(load_zero_points(w, slot))
                    : w.kind == Offsets::minimum  ? set(static_cast<float>(minimum_shift(w)))
                                                  : set(static_cast<float>(symmetric_zero(w)));
      for (int r = 0; r < R; r++) {
        V x_sum = set(a.sums[(row + r) * w.groups + g]);
        V product = sub(part[r * P + p], mul(zero_code, x_sum));
        float* at = totals + r * stride + p * kLanes;
        V total = fma(scale, product, load(at));
        if (w.kind == Offsets::minimum) total = fma(load_minimums(w, slot), x_sum, total);
        store(at, total);
      }
    }
  }
}

// Float weights; first and last count inputs, first is a multiple of kFloatBlock.
template <typename T, int R, int P>
inline void tile_float(const Weights& w, const Activations& a, int64_t row, int64_t panel_index,
                       int64_t first, int64_t last, float* totals, int64_t stride) {
  int64_t apart = w.inputs * kLanes * pair_distance(w);
  const T* weights = reinterpret_cast<const T*>(panel(w, panel_index));
  const float* x = a.x + row * a.stride;
  for (int64_t block = first; block < last; block += kFloatBlock) {
    V part[R * P];
    for (int i = 0; i < R * P; i++) part[i] = zero();
    int64_t end = smaller(block + kFloatBlock, last);
    for (int64_t k = block; k < end; k++) {
      V values[P];
      for (int p = 0; p < P; p++) {
        const T* at = weights + p * apart + k * kLanes;
        values[p] = load(at);
        prefetch(at + 2048);
      }
      add_input<R, P>(values, x + k, a.stride, part);
    }
    for (int r = 0; r < R; r++) {
      for (int p = 0; p < P; p++) {
        float* at = totals + r * stride + p * kLanes;
        store(at, add(load(at), part[r * P + p]));
      }
    }
  }
}

ARK_KERNEL_END
