// Scores of query rows against a block of 64 keys (or compressed keys) of any type of cache.
//
// int8 keys are met by int8 queries: a row q of one head becomes code * step, codes to the nearest.
// 127 steps are the largest |q[2i]| + |q[2i + 1]|, which dot_pairs needs. So a score differs from
// that of the exact query by at most step / 2 * sum |key|.
#pragma once

#include "kv_layout.h"
#include "multiply.h"

ARK_KERNEL_BEGIN

constexpr int64_t kBlock = kKvBlock;

struct Queries {
  int64_t head_dim;
  float* q;         // [rows][head_dim], times the softmax scale
  int8_t* codes;    // [rows][head_dim rounded up to 16]
  float* steps;     // [rows]
  int32_t* biases;  // [rows], what dot_pairs adds
  float* scores;    // [rows][64]
};

inline Queries take_queries(Cursor* at, DType type, int64_t rows, int64_t head_dim) {
  bool coded = type == DType::i8;
  Queries s;
  s.head_dim = head_dim;
  s.q = at->take<float>(rows * head_dim);
  s.codes = at->take<int8_t>(coded ? rows * round_up(head_dim, kLanes) : 0);
  s.steps = at->take<float>(coded ? rows : 0);
  s.biases = at->take<int32_t>(coded ? rows : 0);
  s.scores = at->take<float>(rows * kBlock);
  return s;
}

// Row r of queries becomes scale * q.
inline void load_query(const Queries& s, DType type, int64_t r, const float* q, float scale) {
  float* to = s.q + r * s.head_dim;
  for (int64_t j = 0; j < s.head_dim; j += kLanes) {
    store_upto(to + j, mul(load_upto(q + j, s.head_dim - j), set(scale)), s.head_dim - j);
  }
  if (type != DType::i8) return;
  int64_t width = round_up(s.head_dim, kLanes);
  V pairs = zero();
  for (int64_t j = 0; j < s.head_dim; j += kLanes) {
    V next = load_upto(to + j + 1, s.head_dim - j - 1);
    pairs = max(add(abs(load_upto(to + j, s.head_dim - j)), abs(next)), pairs);
  }
  float most = largest(select(0x5555, pairs, zero()));  // pairs begin at even dimensions
  float step = most / 127.0f;
  V inverse = set(step > 1e-35f ? 1.0f / step : 0.0f);
  I sums = izero();
  for (int64_t j = 0; j < s.head_dim; j += kLanes) {
    I codes = round_to_int(mul(load_upto(to + j, s.head_dim - j), inverse));
    store_i8(s.codes + r * width + j, codes);
    sums = add(sums, codes);
  }
  s.steps[r] = step;
  s.biases[r] = kPairBias * sum(sums);
}

// The rows that a block is scored for: count of them, or the first count where rows is null.
struct RowList {
  const int32_t* rows;
  int64_t count;
  int64_t at(int64_t i) const { return rows ? rows[i] : i; }
};

// Keys are [head_dim][64].
template <typename T>
inline void score_floats(const Queries& s, const RowList& list, const T* keys, Ahead* ahead) {
  constexpr int C = kVectors;
  for_each_tile(list.count, [&](auto tile, int64_t first) __attribute__((always_inline)) {
    constexpr int R = decltype(tile)::value;
    const float* x[R];
    for (int r = 0; r < R; r++) x[r] = s.q + list.at(first + r) * s.head_dim;
    for (int64_t t = 0; t < kBlock; t += C * kLanes) {
      V part[R * C];
      multiply<R, C>(x, keys + t, kBlock, s.head_dim, ahead, part);
      for (int r = 0; r < R; r++) {
        float* to = s.scores + list.at(first + r) * kBlock + t;
        for (int c = 0; c < C; c++) store(to + c * kLanes, part[r * C + c]);
      }
    }
  });
}

// Keys are as kv_layout.h's int8.
inline void score_codes(const Queries& s, const RowList& list, const char* keys, Ahead* ahead) {
  constexpr int C = kVectors;
  int64_t padded = kv_padded(s.head_dim, 4);
  int64_t width = round_up(s.head_dim, kLanes);
  const float* scales = reinterpret_cast<const float*>(keys + padded * kBlock);
  for_each_tile(list.count, [&](auto tile, int64_t first) __attribute__((always_inline)) {
    constexpr int R = decltype(tile)::value;
    const int8_t* x[R];
    for (int r = 0; r < R; r++) x[r] = s.codes + list.at(first + r) * width;
    for (int64_t t = 0; t < kBlock; t += C * kLanes) {
      I part[R * C];
      multiply_codes<R, C, false>(x, keys + 4 * t, 4 * kBlock, padded / 4, ahead, part);
      for (int r = 0; r < R; r++) {
        int64_t row = list.at(first + r);
        for (int c = 0; c < C; c++) {
          V products = to_float(sub(part[r * C + c], iset(s.biases[row])));
          V step = mul(load(scales + t + c * kLanes), set(s.steps[row]));
          store(s.scores + row * kBlock + t + c * kLanes, mul(products, step));
        }
      }
    }
  });
}

// Turns of the products below: what memory can be fetched over.
inline int64_t score_turns(int64_t rows, int64_t head_dim, DType type) {
  int64_t turns = type == DType::i8 ? quotient_up(head_dim, 4) : head_dim;
  return kBlock / (kVectors * kLanes) * tile_count(rows) * turns;
}

// scores[row][t] = q[row] · key[t] for 64 keys of f32, f16 or i8.
inline void score_block(const Queries& s, const RowList& list, const void* keys, DType type,
                        Ahead* ahead) {
  if (type == DType::i8) {
    score_codes(s, list, static_cast<const char*>(keys), ahead);
  } else if (type == DType::f16) {
    score_floats(s, list, static_cast<const Half*>(keys), ahead);
  } else {
    score_floats(s, list, static_cast<const float*>(keys), ahead);
  }
}

ARK_KERNEL_END
