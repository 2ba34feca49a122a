// Attention of a few query rows to one block of 64 cached tokens, with a running softmax.
#pragma once

#include "kernel_check.h"

ARK_KERNEL_BEGIN

constexpr int64_t kBlock = 64;    // tokens per block of the caches
constexpr int64_t kRowTile = 32;  // query rows that share a converted block
constexpr int kTile = 4;          // query rows in registers

// Query rows of one kv head, and what they have gathered so far.
struct RowTile {
  int64_t rows;
  int64_t head_dim;
  int64_t padded;              // head_dim rounded up to whole vectors
  float* q;                    // [rows][head_dim], times the softmax scale
  int64_t position[kRowTile];  // of each row's token
  float high[kRowTile];        // largest score
  float total[kRowTile];       // sum of exp(score - high)
  float* out;                  // [rows][padded], sum of exp(score - high) * value
  float* scores;               // [kRowTile][64]
  float* key_block;            // [head_dim][64] as fp32
  float* value_block;          // [64][padded] as fp32
};

// scores[r][t] = q[r] · key[t] for R rows and 64 tokens; keys are [head_dim][64].
template <int R, typename T>
ARK_INLINE void score_rows(const float* q, int64_t head_dim, const T* keys, float* scores) {
  constexpr int C = kVectors;
  for (int64_t t = 0; t < kBlock; t += C * kLanes) {
    V part[R * C];
    for (int i = 0; i < R * C; i++) part[i] = zero();
    for (int64_t j = 0; j < head_dim; j++) {
      V key[C];
      for (int c = 0; c < C; c++) key[c] = load(keys + j * kBlock + t + c * kLanes);
      for (int r = 0; r < R; r++) {
        V query = set(q[r * head_dim + j]);
        for (int c = 0; c < C; c++) part[r * C + c] = fma(query, key[c], part[r * C + c]);
      }
    }
    for (int r = 0; r < R; r++) {
      for (int c = 0; c < C; c++) store(scores + r * kBlock + t + c * kLanes, part[r * C + c]);
    }
  }
}
template <typename T>
inline void score_tile(const float* q, int64_t rows, int64_t head_dim, const T* keys,
                       float* scores) {
  int64_t r = 0;
  for (; r + kTile <= rows; r += kTile) {
    score_rows<kTile>(q + r * head_dim, head_dim, keys, scores + r * kBlock);
  }
  if (r + 2 <= rows) {
    score_rows<2>(q + r * head_dim, head_dim, keys, scores + r * kBlock);
    r += 2;
  }
  if (r < rows) score_rows<1>(q + r * head_dim, head_dim, keys, scores + r * kBlock);
}

// out[r] = factor[r] * out[r] + sum over tokens of weight[r][t] * value[t], C vectors of
// dimensions.
template <int R, int C, typename T>
ARK_INLINE void gather_columns(const float* weights, const float* factors, const T* values,
                               int64_t tokens, int64_t width, float* out, int64_t padded) {
  V part[R * C];
  for (int r = 0; r < R; r++) {
    for (int c = 0; c < C; c++) {
      part[r * C + c] = mul(load(out + r * padded + c * kLanes), set(factors[r]));
    }
  }
  for (int64_t t = 0; t < tokens; t++) {
    V value[C];
    for (int c = 0; c < C; c++) value[c] = load(values + t * width + c * kLanes);
    for (int r = 0; r < R; r++) {
      V weight = set(weights[r * kBlock + t]);
      for (int c = 0; c < C; c++) part[r * C + c] = fma(weight, value[c], part[r * C + c]);
    }
  }
  for (int r = 0; r < R; r++) {
    for (int c = 0; c < C; c++) store(out + r * padded + c * kLanes, part[r * C + c]);
  }
}
template <int R, typename T>
ARK_INLINE void gather_rows(const float* weights, const float* factors, const T* values,
                            int64_t tokens, int64_t width, float* out, int64_t padded) {
  int64_t j = 0;
  for (; j + kVectors * kLanes <= padded; j += kVectors * kLanes) {
    gather_columns<R, kVectors>(weights, factors, values + j, tokens, width, out + j, padded);
  }
  for (; j < padded; j += kLanes) {
    gather_columns<R, 1>(weights, factors, values + j, tokens, width, out + j, padded);
  }
}
template <typename T>
inline void gather_tile(const RowTile& tile, const float* factors, const T* values, int64_t tokens,
                        int64_t width) {
  int64_t r = 0;
  for (; r + kTile <= tile.rows; r += kTile) {
    gather_rows<kTile>(tile.scores + r * kBlock, factors + r, values, tokens, width,
                       tile.out + r * tile.padded, tile.padded);
  }
  if (r + 2 <= tile.rows) {
    gather_rows<2>(tile.scores + r * kBlock, factors + r, values, tokens, width,
                   tile.out + r * tile.padded, tile.padded);
    r += 2;
  }
  if (r < tile.rows) {
    gather_rows<1>(tile.scores + r * kBlock, factors + r, values, tokens, width,
                   tile.out + r * tile.padded, tile.padded);
  }
}

inline void convert_keys(const Half* keys, int64_t head_dim, float* out) {
  for (int64_t i = 0; i < head_dim * kBlock; i += kLanes) store(out + i, load(keys + i));
}
template <typename T>
inline void convert_values(const T* values, int64_t tokens, int64_t head_dim, int64_t padded,
                           float* out) {
  for (int64_t t = 0; t < tokens; t++) {
    for (int64_t j = 0; j < padded; j += kLanes) {
      store(out + t * padded + j, load_upto(values + t * head_dim + j, head_dim - j));
    }
  }
}

// Scores against a block, whatever its type; many rows share one conversion.
inline void score_block(const float* q, int64_t rows, int64_t head_dim, const void* keys,
                        DType type, float* converted, float* scores) {
  if (type == DType::f32) {
    score_tile(q, rows, head_dim, static_cast<const float*>(keys), scores);
  } else if (rows <= kTile) {
    score_tile(q, rows, head_dim, static_cast<const Half*>(keys), scores);
  } else {
    convert_keys(static_cast<const Half*>(keys), head_dim, converted);
    score_tile(q, rows, head_dim, converted, scores);
  }
}
inline void gather_block(const RowTile& tile, const float* factors, const void* values, DType type,
                         int64_t tokens) {
  int64_t d = tile.head_dim;
  const float* floats = static_cast<const float*>(values);
  const Half* halves = static_cast<const Half*>(values);
  if (d == tile.padded && type == DType::f32) {
    gather_tile(tile, factors, floats, tokens, d);
  } else if (d == tile.padded && tile.rows <= kTile) {
    gather_tile(tile, factors, halves, tokens, d);
  } else {
    if (type == DType::f32) {
      convert_values(floats, tokens, d, tile.padded, tile.value_block);
    } else {
      convert_values(halves, tokens, d, tile.padded, tile.value_block);
    }
    gather_tile(tile, factors, static_cast<const float*>(tile.value_block), tokens, tile.padded);
  }
}

inline uint64_t first_bits(int64_t n) {
  return n <= 0 ? 0 : n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
}

// Scores become weights exp(score - high); gives the factor for what was gathered before.
inline void weigh_rows(RowTile* tile, const uint64_t* masks, float* factors) {
  float high[kRowTile];
  for (int64_t r = 0; r < tile->rows; r++) {
    V top = set(-kInfinity);
    float* scores = tile->scores + r * kBlock;
    for (int i = 0; i < 4; i++) {
      uint32_t bits = static_cast<uint32_t>(masks[r] >> (i * kLanes)) & 0xffff;
      V v = load(scores + i * kLanes);
      top = max(bits == 0xffff ? v : select(bits, v, set(-kInfinity)), top);
    }
    float best = largest(top);
    high[r] = best > tile->high[r] ? best : tile->high[r];
  }
  for (int64_t r = 0; r < tile->rows; r += kLanes) {
    int64_t n = tile->rows - r;
    store_upto(factors + r, exp(sub(load_upto(tile->high + r, n), load_upto(high + r, n))), n);
  }
  for (int64_t r = 0; r < tile->rows; r++) {
    float* scores = tile->scores + r * kBlock;
    if (masks[r] == 0) {
      factors[r] = 1;
      memset(scores, 0, kBlock * sizeof(float));
      continue;
    }
    V shift = set(high[r]);
    V total = zero();
    for (int i = 0; i < 4; i++) {
      uint32_t bits = static_cast<uint32_t>(masks[r] >> (i * kLanes)) & 0xffff;
      V weight = exp(sub(load(scores + i * kLanes), shift));
      if (bits != 0xffff) weight = select(bits, weight, zero());
      store(scores + i * kLanes, weight);
      total = add(total, weight);
    }
    tile->total[r] = tile->total[r] * factors[r] + sum(total);
    tile->high[r] = high[r];
  }
}

// Adds the tokens of one block that mask allows and that are not after the row's own.
inline void attend_block(RowTile* tile, const void* keys, const void* values, DType type,
                         int64_t block, uint64_t mask) {
  uint64_t masks[kRowTile];
  uint64_t seen = 0;
  for (int64_t r = 0; r < tile->rows; r++) {
    masks[r] = mask & first_bits(tile->position[r] - block * kBlock + 1);
    seen |= masks[r];
  }
  if (seen == 0) return;
  score_block(tile->q, tile->rows, tile->head_dim, keys, type, tile->key_block, tile->scores);
  float factors[kRowTile];
  weigh_rows(tile, masks, factors);
  gather_block(*tile, factors, values, type, 64 - __builtin_clzll(seen));
}

ARK_KERNEL_END
