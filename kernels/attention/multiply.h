// Tiles of the products that attention consists of: a few rows times some columns of a cached
// block, which is read as it lies in the cache. Converting it first is slower: conversions run on
// ports that products leave free.
#pragma once

#include "kernel_check.h"

ARK_KERNEL_BEGIN

constexpr int kTile = 6;  // rows in registers

// Memory that is wanted next. It is fetched a little in every turn of the products: blocks lie
// scattered, so the hardware does not foresee them, and requests in one bunch would queue up.
struct Ahead {
  const char* at;
  const char* end;
  int64_t step;  // bytes per turn
};
inline Ahead fetch_over(const char* start, int64_t bytes, int64_t turns) {
  return {start, start + bytes, round_up(quotient_up(bytes, larger(turns, 1)), 8)};
}

// part[r][c] = sum over k < n of x[r][k] * m[k * stride + 16 c ...].
template <int R, int C, typename T>
ARK_INLINE void multiply(const float* const* x, const T* m, int64_t stride, int64_t n, Ahead* ahead,
                         V* part) {
  for (int i = 0; i < R * C; i++) part[i] = zero();
  const char* at = ahead->at;
  int64_t step = at < ahead->end ? ahead->step : 0;
  ARK_ROLLED
  for (int64_t k = 0; k < n; k++) {
    V column[C];
    for (int c = 0; c < C; c++) column[c] = load(m + k * stride + c * kLanes);
    for (int r = 0; r < R; r++) {
      V factor = set(x[r][k]);
      for (int c = 0; c < C; c++) part[r * C + c] = fma(factor, column[c], part[r * C + c]);
    }
    prefetch(at);
    at += step;
  }
  ahead->at = at;
}

// The same of int8 codes, four at a time: chunk k of column i is the four bytes from
// m + k * stride + 4 i. Unsigned: x is 0 to 127; else its pairs of neighbours are at most 128
// together, and the sums have the bias of dot_pairs.
template <int R, int C, bool kUnsigned>
ARK_INLINE void multiply_codes(const int8_t* const* x, const char* m, int64_t stride, int64_t n,
                               Ahead* ahead, I* part) {
  for (int i = 0; i < R * C; i++) part[i] = izero();
  const char* at = ahead->at;
  int64_t step = at < ahead->end ? ahead->step : 0;
  ARK_ROLLED
  for (int64_t k = 0; k < n; k++) {
    B column[C];
    for (int c = 0; c < C; c++) column[c] = load_bytes(m + k * stride + 4 * c * kLanes);
    for (int r = 0; r < R; r++) {
      for (int c = 0; c < C; c++) {
        I* sum = part + r * C + c;
        *sum = kUnsigned ? dot_u7(*sum, column[c], x[r] + 4 * k)
                         : dot_pairs(*sum, column[c], x[r] + 4 * k);
        pin(sum);
      }
    }
    prefetch(at);
    at += step;
  }
  ahead->at = at;
}

// Calls body(RowCount<R>, first row) for tiles that make up count rows.
template <int R>
struct RowCount {
  static constexpr int value = R;
};
template <typename Body>
ARK_INLINE void for_each_tile(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kTile <= count; i += kTile) body(RowCount<kTile>{}, i);
  if (i + 4 <= count) {
    body(RowCount<4>{}, i);
    i += 4;
  }
  if (i + 2 <= count) {
    body(RowCount<2>{}, i);
    i += 2;
  }
  if (i < count) body(RowCount<1>{}, i);
}
// How often for_each_tile calls its body.
inline int64_t tile_count(int64_t count) {
  int64_t left = count % kTile;
  return count / kTile + (left >= 4) + (left % 4 >= 2) + left % 2;
}

ARK_KERNEL_END
