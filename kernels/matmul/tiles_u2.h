// Tiles of a product with ternary weights: R rows by 16 outputs. A chunk is 16 inputs in 64 bytes.
// The scale of a weight may span many groups of activations, and each of these is summed apart.
#pragma once

#include "tiles_float.h"
#include "tiles_int8.h"

ARK_KERNEL_BEGIN

// A D holds kDotLimit products of codes up to 15, so five times as many of codes up to 3; a
// group of activations has at most 128 inputs, which are 32 products.
static_assert(kDotLimit * 5 >= 32, "a group of activations fits in one D");

template <int R, int J>
ARK_INLINE void add_codes_u2(B bytes, const int8_t* x, int64_t inputs, D* part) {
  B codes = codes_u2<J>(bytes);
  for (int r = 0; r < R; r++) {
    part[r] = dot_u4(part[r], codes, x + r * inputs + 4 * J);
    keep_order(&part[r]);
  }
}

// The dot products of one group of codes with R rows, stride apart.
template <int R>
ARK_INLINE void dot_group_u2(const Weights& w, const char* codes, const int8_t* x, int64_t stride,
                             I* dot) {
  D part[R];
  for (int r = 0; r < R; r++) part[r] = dot_zero();
  ARK_ROLLED
  for (int64_t k = 0; k < w.x_group; k += 16) {
    B bytes = load_bytes(codes + k * 4);
    prefetch(codes + k * 4 + kPrefetchBytes);
    add_codes_u2<R, 0>(bytes, x + k, stride, part);
    add_codes_u2<R, 1>(bytes, x + k, stride, part);
    add_codes_u2<R, 2>(bytes, x + k, stride, part);
    add_codes_u2<R, 3>(bytes, x + k, stride, part);
  }
  for (int r = 0; r < R; r++) dot[r] = sum_dot(part[r]);
}

// total += scale * x_scale * (dot - sum), for zero is code 1.
ARK_INLINE V add_product_u2(I dot, int32_t sum, V scale, float x_scale, V total) {
  return fma(to_float(sub(dot, iset(sum))), mul(scale, set(x_scale)), total);
}

// Adds groups of activations [first, last) of one panel to totals [R][stride]. One row and its fine
// codes share the unpacked weights.
template <int R>
inline void tile_u2(const Weights& w, const Activations& a, int64_t row, int64_t panel_index,
                    int64_t first, int64_t last, float* totals, int64_t stride) {
  V total[R];
  V fine[R];
  for (int r = 0; r < R; r++) {
    total[r] = load(totals + r * stride);
    fine[r] = zero();
  }
  int64_t span = w.group / w.x_group;
  int64_t slot = panel_index * w.groups + first / span;
  int64_t left = span - first % span;
  int64_t begin = row * a.code_stride + first * w.x_group;
  const char* codes = panel(w, panel_index) + first * w.x_group * 4;
  for (int64_t g = first; g < last; g++) {
    int64_t at = row * w.x_groups + g;
    bool both = R == 1 && a.coarse[at];
    I dot[R];
    I finer[2] = {izero(), izero()};
    if (both) {
      dot_group_u2<2>(w, codes, a.codes + begin, a.fine_codes - a.codes, finer);
      dot[0] = finer[0];
    } else {
      dot_group_u2<R>(w, codes, a.codes + begin, a.code_stride, dot);
    }
    V scale = load_scales(w, slot);
    for (int r = 0; r < R; r++) {
      int64_t i = at + r * w.x_groups;
      total[r] = add_product_u2(dot[r], a.code_sums[i], scale, a.scales[i], total[r]);
    }
    for (int r = 0; r < R; r++) {
      int64_t i = at + r * w.x_groups;
      if (!a.coarse[i]) continue;
      if (!both) dot_group_u2<1>(w, codes, a.fine_codes + begin + r * a.code_stride, 0, finer + 1);
      float step = a.scales[i] * (1.0f / kFineSteps);
      fine[r] = add_product_u2(finer[1], a.fine_sums[i], scale, step, fine[r]);
    }
    codes += w.x_group * 4;
    begin += w.x_group;
    if (--left == 0) {
      left = span;
      slot++;
    }
  }
  for (int r = 0; r < R; r++) store(totals + r * stride, add(total[r], fine[r]));
}

template <int J>
ARK_INLINE V code_u2(I word) {
  return to_float(bits_and(shr<8 * (J % 4) + 2 * (J / 4)>(word), 3));
}
template <int R, int P, int J>
ARK_INLINE void add_u2(const I* words, const float* x, int64_t stride, V* part) {
  V w[P];
  for (int p = 0; p < P; p++) w[p] = code_u2<J>(words[p]);
  add_input<R, P>(w, x + J, stride, part);
}
template <int R, int P, int J>
ARK_INLINE void add_four_u2(const I* words, const float* x, int64_t stride, V* part) {
  add_u2<R, P, J>(words, x, stride, part);
  add_u2<R, P, J + 1>(words, x, stride, part);
  add_u2<R, P, J + 2>(words, x, stride, part);
  add_u2<R, P, J + 3>(words, x, stride, part);
}

// The same with fp32 activations, for P panels.
template <int R, int P>
inline void tile_u2_float(const Weights& w, const Activations& a, int64_t row, int64_t panel_index,
                          int64_t first, int64_t last, float* totals, int64_t stride) {
  int64_t bytes = panel_bytes(w) * pair_distance(w);
  int64_t span = w.group / w.x_group;
  for (int64_t g = first; g < last; g++) {
    const char* codes = panel(w, panel_index) + g * w.x_group * 4;
    const float* x = a.x + row * a.stride + g * w.x_group;
    V part[R * P];
    for (int i = 0; i < R * P; i++) part[i] = zero();
    for (int64_t k = 0; k < w.x_group; k += 16, codes += 64, x += 16) {
      I words[P];
      for (int p = 0; p < P; p++) words[p] = load_words(codes + p * bytes);
      if (R == 1) prefetch(codes + kPrefetchBytes);
      add_four_u2<R, P, 0>(words, x, a.stride, part);
      add_four_u2<R, P, 4>(words, x, a.stride, part);
      add_four_u2<R, P, 8>(words, x, a.stride, part);
      add_four_u2<R, P, 12>(words, x, a.stride, part);
    }
    for (int p = 0; p < P; p++) {
      V scale = load_scales(w, (panel_index + p * pair_distance(w)) * w.groups + g / span);
      for (int r = 0; r < R; r++) {
        V product = sub(part[r * P + p], set(a.sums[(row + r) * w.x_groups + g]));
        float* at = totals + r * stride + p * kLanes;
        store(at, fma(scale, product, load(at)));
      }
    }
  }
}

ARK_KERNEL_END
