// The running softmax of query rows: scores of a block become weights exp(score - high).
#pragma once

#include "score_block.h"

ARK_KERNEL_BEGIN

constexpr int64_t kRowTile = 128;  // query rows that go through the blocks together

// What rows have gathered so far.
struct Sums {
  float* high;     // largest score
  float* total;    // sum of exp(score - high)
  float* out;      // [rows][padded], sum of exp(score - high) * value
  float* factors;  // for what was gathered before the current block
  // Of int8 values: weight * scale of the value = code * step, step per row and block, codes 0 to
  // 127 to the nearest.
  int8_t* codes;  // [rows][64]
  float* steps;
};

inline uint64_t first_bits(int64_t n) {
  return n <= 0 ? 0 : n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
}

ARK_INLINE V masked(uint64_t mask, int i, V v, V other) {
  uint32_t bits = static_cast<uint32_t>(mask >> (i * kLanes)) & 0xffff;
  return bits == 0xffff ? v : select(bits, v, other);
}

inline float largest_score(const float* scores, uint64_t mask) {
  V top = set(-kInfinity);
  for (int i = 0; i < 4; i++) {
    // max gives its second operand when the first is no number.
    top = max(masked(mask, i, load(scores + i * kLanes), set(-kInfinity)), top);
  }
  return largest(top);
}

// The weights of one row; of int8 values as codes.
inline void weigh_row(float* scores, uint64_t mask, float high, const float* value_scales,
                      int8_t* codes, float* step, float* total) {
  V weight[4];
  V sums = zero();
  for (int i = 0; i < 4; i++) {
    V v = exp(sub(load(scores + i * kLanes), set(high)));
    weight[i] = masked(mask, i, v, zero());
    sums = add(sums, weight[i]);
  }
  *total = sum(sums);
  if (!value_scales) {
    for (int i = 0; i < 4; i++) store(scores + i * kLanes, weight[i]);
    return;
  }
  V most = zero();
  for (int i = 0; i < 4; i++) {
    V scaled = mul(weight[i], load(value_scales + i * kLanes));
    weight[i] = masked(mask, i, scaled, zero());
    most = max(weight[i], most);
  }
  float top = largest(most);
  *step = top / 127.0f;
  V inverse = set(*step > 1e-35f ? 1.0f / *step : 0.0f);
  for (int i = 0; i < 4; i++) store_i8(codes + i * kLanes, round_to_int(mul(weight[i], inverse)));
}

// masks[i]: the tokens that row i of the list sees. value_scales: of int8 values, else null.
inline void weigh_rows(const Sums& sums, float* scores, const RowList& list, const uint64_t* masks,
                       const float* value_scales) {
  float before[kRowTile], high[kRowTile], factors[kRowTile];
  for (int64_t i = 0; i < list.count; i++) {
    int64_t r = list.at(i);
    float best = largest_score(scores + r * kBlock, masks[i]);
    before[i] = sums.high[r];
    high[i] = best > before[i] ? best : before[i];
  }
  for (int64_t i = 0; i < list.count; i += kLanes) {
    int64_t n = list.count - i;
    store_upto(factors + i, exp(sub(load_upto(before + i, n), load_upto(high + i, n))), n);
  }
  for (int64_t i = 0; i < list.count; i++) {
    int64_t r = list.at(i);
    float total = 0;
    weigh_row(scores + r * kBlock, masks[i], high[i], value_scales, sums.codes + r * kBlock,
              sums.steps + r, &total);
    sums.factors[r] = factors[i];
    sums.total[r] = sums.total[r] * factors[i] + total;
    sums.high[r] = high[i];
  }
}

ARK_KERNEL_END
