// Tiles of a product with int8 activations: R rows by 16 outputs. Integer arithmetic is exact, and
// fp32 sums run over the groups in order, so a row's result does not depend on the tile it is in.
// Fine codes have sums of their own, so that gemm_int8.h can multiply them apart.
#pragma once

#include "activations.h"

ARK_KERNEL_BEGIN

constexpr int kPrefetchBytes = 4096;

ARK_KERNEL_END

#if defined(ARK_ISA_avx2)
#include "dot_avx2.h"
#endif

ARK_KERNEL_BEGIN

// Takes zero * sum from the dot products of one group with R rows of codes.
template <typename Dot, Offsets kKind, int R>
ARK_INLINE void subtract_zeros(const Weights& w, const int32_t* sums, int64_t slot, I* dot) {
  if (kKind == Offsets::zero_point) {
    I zeros = add(load_zero_points(w, slot), iset(Dot::kBias));
    for (int r = 0; r < R; r++) dot[r] = sub(dot[r], mul(zeros, iset(sums[r * w.groups])));
    return;
  }
  constexpr int32_t kStored = kKind == Offsets::minimum ? Dot::kMinimumShift : Dot::kSymmetricZero;
  constexpr int32_t kZero = kStored + Dot::kBias;
  if (kZero == 0) return;
  for (int r = 0; r < R; r++) dot[r] = sub(dot[r], iset(kZero * sums[r * w.groups]));
}

// So few that the hardware does not see a stream in them.
ARK_INLINE void prefetch_scales(const Weights& w, int64_t slot) {
  constexpr int64_t kAhead = 16 * kLanes;
  prefetch(w.scales + (slot * kLanes + kAhead) * 2);
  if (w.kind != Offsets::symmetric) prefetch(w.offsets + slot * kLanes + kAhead);
}

// Adds one group to the totals of R rows, and its fine codes to fine. dot_codes.rows<N>(x, dot) is
// the integer product of the group's codes with N rows of activations.
template <Offsets kKind, int R, typename Dot>
ARK_INLINE void add_group(const Weights& w, const Activations& a, int64_t row, int64_t panel_index,
                          int64_t g, V* total, V* fine, const Dot& dot_codes) {
  int64_t slot = panel_index * w.groups + g;
  int64_t at = row * w.groups + g;
  int64_t begin = row * a.code_stride + g * w.group;
  prefetch_scales(w, slot);
  I dot[R];
  dot_codes.template rows<R>(a.codes + begin, dot);
  subtract_zeros<Dot, kKind, R>(w, a.code_sums + at, slot, dot);
  V scale = load_scales(w, slot);
  const float* scales = a.scales + at;
  for (int r = 0; r < R; r++) {
    total[r] = fma(to_float(dot[r]), mul(scale, set(scales[r * w.groups])), total[r]);
  }
  if (kKind == Offsets::minimum) {
    V minimum = load_minimums(w, slot);
    for (int r = 0; r < R; r++) {
      total[r] = fma(minimum, set(a.sums[at + r * w.groups]), total[r]);
    }
  }
  for (int r = 0; r < R; r++) {
    if (!a.coarse[at + r * w.groups]) continue;
    I one[1];
    dot_codes.template rows<1>(a.fine_codes + begin + r * a.code_stride, one);
    subtract_zeros<Dot, kKind, 1>(w, a.fine_sums + at + r * w.groups, slot, one);
    V step = set(scales[r * w.groups] * (1.0f / kFineSteps));
    fine[r] = fma(to_float(one[0]), mul(scale, step), fine[r]);
  }
}

// 8 inputs of 4-bit codes.
template <int R>
ARK_INLINE void add_chunk_u4(const char* codes, const int8_t* x, int64_t inputs, D* part) {
  B low, high;
  unpack_u4(reinterpret_cast<const uint8_t*>(codes), &low, &high);
  prefetch(codes + kPrefetchBytes);
  for (int r = 0; r < R; r++) {
    part[r] = dot_u4(part[r], low, x + r * inputs);
    part[r] = dot_u4(part[r], high, x + r * inputs + 4);
  }
}

// The integer product of one group of 4-bit codes with R rows.
template <int R>
ARK_INLINE void dot_group_u4(const char* codes, const int8_t* x, int64_t inputs, int64_t chunks,
                             I* dot) {
#if defined(ARK_ISA_avx2)
  if (R > 1) {
    dot_rows_u4<R>(codes, x, inputs, chunks, dot);
    return;
  }
#endif
  constexpr int kSpan = kDotLimit / 2 < 8 ? kDotLimit / 2 : 4;
  for (int r = 0; r < R; r++) dot[r] = izero();
  int64_t c = 0;
  for (; c + kSpan <= chunks; c += kSpan) {
    D part[R];
    for (int r = 0; r < R; r++) part[r] = dot_zero();
    ARK_ROLLED
    for (int i = 0; i < kSpan; i++) {
      add_chunk_u4<R>(codes + (c + i) * 64, x + (c + i) * 8, inputs, part);
    }
    for (int r = 0; r < R; r++) dot[r] = add(dot[r], sum_dot(part[r]));
  }
  for (; c < chunks; c++) {
    D part[R];
    for (int r = 0; r < R; r++) part[r] = dot_zero();
    add_chunk_u4<R>(codes + c * 64, x + c * 8, inputs, part);
    for (int r = 0; r < R; r++) dot[r] = add(dot[r], sum_dot(part[r]));
  }
}

// The same for 8-bit codes.
template <int R>
ARK_INLINE void dot_group_i8(const char* codes, const int8_t* x, int64_t inputs, int64_t group,
                             I* dot) {
  for (int r = 0; r < R; r++) dot[r] = izero();
  for (int64_t k = 0; k < group; k += 4) {
    B bytes = load_bytes(codes + k * 16);
    prefetch(codes + k * 16 + kPrefetchBytes);
    for (int r = 0; r < R; r++) dot[r] = dot_i8(dot[r], bytes, x + k + r * inputs);
  }
}

// The product of a group's codes with rows; kBytes of codes hold one input of 16 outputs. kBias is
// what it adds to each code as it is stored; the others are as in panels.h.
struct DotU4 {
  static constexpr int64_t kBytes = 8;
  static constexpr int32_t kBias = 0;
  static constexpr int32_t kMinimumShift = 0;
  static constexpr int32_t kSymmetricZero = 8;
  const char* codes;
  int64_t stride;
  int64_t group;
  template <int R>
  ARK_INLINE void rows(const int8_t* x, I* dot) const {
    dot_group_u4<R>(codes, x, stride, group / 8, dot);
  }
};
struct DotI8 {
  static constexpr int64_t kBytes = 16;
  static constexpr int32_t kBias = kI8Bias;
  static constexpr int32_t kMinimumShift = -128;
  static constexpr int32_t kSymmetricZero = 0;
  const char* codes;
  int64_t stride;
  int64_t group;
  template <int R>
  ARK_INLINE void rows(const int8_t* x, I* dot) const {
    dot_group_i8<R>(codes, x, stride, group, dot);
  }
};

// Adds groups [first, last) of one panel to totals [R][stride].
template <typename Dot, Offsets kKind, int R>
inline void tile_int8_of(const Weights& w, const Activations& a, int64_t row, int64_t panel_index,
                         int64_t first, int64_t last, float* totals, int64_t stride) {
  V total[R];
  V fine[R];
  for (int r = 0; r < R; r++) {
    total[r] = load(totals + r * stride);
    fine[r] = zero();
  }
  for (int64_t g = first; g < last; g++) {
    Dot dot_codes = {panel(w, panel_index) + g * w.group * Dot::kBytes, a.code_stride, w.group};
    add_group<kKind, R>(w, a, row, panel_index, g, total, fine, dot_codes);
  }
  for (int r = 0; r < R; r++) store(totals + r * stride, add(total[r], fine[r]));
}

template <typename Dot, int R>
inline void tile_int8(const Weights& w, const Activations& a, int64_t row, int64_t panel_index,
                      int64_t first, int64_t last, float* totals, int64_t stride) {
  if (w.kind == Offsets::symmetric) {
    tile_int8_of<Dot, Offsets::symmetric, R>(w, a, row, panel_index, first, last, totals, stride);
  } else if (w.kind == Offsets::zero_point) {
    tile_int8_of<Dot, Offsets::zero_point, R>(w, a, row, panel_index, first, last, totals, stride);
  } else {
    tile_int8_of<Dot, Offsets::minimum, R>(w, a, row, panel_index, first, last, totals, stride);
  }
}

ARK_KERNEL_END
