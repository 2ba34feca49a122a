// Weighted sums of the values of one block, of any type of cache.
#pragma once

#include "softmax.h"

ARK_KERNEL_BEGIN

// out[r] = factor[r] * out[r] + sum over tokens of weight[r][t] * value[t], C vectors of
// dimensions from j on.
template <int R, int C, typename T>
ARK_INLINE void gather_columns(const Sums& sums, const float* weights, const int64_t* rows,
                               const T* values, int64_t width, int64_t tokens, int64_t padded,
                               int64_t j, Ahead* ahead) {
  const float* x[R];
  for (int r = 0; r < R; r++) x[r] = weights + rows[r] * kBlock;
  V part[R * C];
  multiply<R, C>(x, values + j, width, tokens, ahead, part);
  for (int r = 0; r < R; r++) {
    float* out = sums.out + rows[r] * padded + j;
    V factor = set(sums.factors[rows[r]]);
    for (int c = 0; c < C; c++) {
      store(out + c * kLanes, fma(load(out + c * kLanes), factor, part[r * C + c]));
    }
  }
}

// Values are [64][width], width at least padded.
template <typename T>
inline void gather_floats(const Sums& sums, const float* weights, const RowList& list,
                          const T* values, int64_t width, int64_t tokens, int64_t padded,
                          Ahead* ahead) {
  for_each_tile(list.count, [&](auto tile, int64_t first) __attribute__((always_inline)) {
    constexpr int R = decltype(tile)::value;
    constexpr int64_t kWide = kVectors * kLanes;
    int64_t rows[R];
    for (int r = 0; r < R; r++) rows[r] = list.at(first + r);
    int64_t j = 0;
    for (; j + kWide <= padded; j += kWide) {
      gather_columns<R, kVectors>(sums, weights, rows, values, width, tokens, padded, j, ahead);
    }
    for (; j < padded; j += kLanes) {
      gather_columns<R, 1>(sums, weights, rows, values, width, tokens, padded, j, ahead);
    }
  });
}

template <int R, int C>
ARK_INLINE void gather_code_columns(const Sums& sums, const int64_t* rows, const char* values,
                                    int64_t padded, int64_t j, Ahead* ahead) {
  const int8_t* x[R];
  for (int r = 0; r < R; r++) x[r] = sums.codes + rows[r] * kBlock;
  I part[R * C];
  multiply_codes<R, C, true>(x, values + 4 * j, 4 * padded, kBlock / 4, ahead, part);
  for (int r = 0; r < R; r++) {
    float* out = sums.out + rows[r] * padded + j;
    V factor = set(sums.factors[rows[r]]);
    V step = set(sums.steps[rows[r]]);
    for (int c = 0; c < C; c++) {
      V kept = mul(load(out + c * kLanes), factor);
      store(out + c * kLanes, fma(to_float(part[r * C + c]), step, kept));
    }
  }
}

// Values are as kv_layout.h's int8.
inline void gather_codes(const Sums& sums, const RowList& list, const char* values, int64_t padded,
                         Ahead* ahead) {
  for_each_tile(list.count, [&](auto tile, int64_t first) __attribute__((always_inline)) {
    constexpr int R = decltype(tile)::value;
    constexpr int64_t kWide = kVectors * kLanes;
    int64_t rows[R];
    for (int r = 0; r < R; r++) rows[r] = list.at(first + r);
    int64_t j = 0;
    for (; j + kWide <= padded; j += kWide) {
      gather_code_columns<R, kVectors>(sums, rows, values, padded, j, ahead);
    }
    for (; j < padded; j += kLanes) gather_code_columns<R, 1>(sums, rows, values, padded, j, ahead);
  });
}

// Rows of head_dim floats become rows of padded ones.
template <typename T>
inline void pad_values(const T* values, int64_t tokens, int64_t head_dim, int64_t padded,
                       float* out) {
  for (int64_t t = 0; t < tokens; t++) {
    for (int64_t j = 0; j < padded; j += kLanes) {
      store(out + t * padded + j, load_upto(values + t * head_dim + j, head_dim - j));
    }
  }
}

inline int64_t gather_turns(int64_t rows, int64_t padded, int64_t tokens, DType type) {
  int64_t wide = padded / (kVectors * kLanes);
  int64_t columns = wide + (padded - wide * kVectors * kLanes) / kLanes;
  return columns * tile_count(rows) * (type == DType::i8 ? kBlock / 4 : tokens);
}

ARK_KERNEL_END
