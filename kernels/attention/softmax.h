// The running softmax of query rows: scores of a block become weights 2^(score - high). The queries
// are multiplied by log2(e) beforehand.
#pragma once

#include "score_block.h"

ARK_KERNEL_BEGIN

constexpr int64_t kRowTile = 128;  // query rows that go through the blocks together

// What rows have gathered so far.
struct Sums {
  float* high;     // largest score
  float* total;    // sum of 2^(score - high)
  float* out;      // [rows][padded], sum of 2^(score - high) * value
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

// Weights in place of the scores of one row. sums: of each lane; tops: likewise the largest weight
// times the scale of its value, by which all are multiplied, where there are value_scales.
inline void weigh_row(float* scores, uint64_t mask, float high, const float* value_scales,
                      float* sums, float* tops) {
  V total = zero();
  V top = zero();
  for (int i = 0; i < 4; i++) {
    V v = exp2(sub(load(scores + i * kLanes), set(high)));
    v = masked(mask, i, v, zero());
    total = add(total, v);
    if (value_scales) {
      v = masked(mask, i, mul(v, load(value_scales + i * kLanes)), zero());
      top = max(v, top);
    }
    store(scores + i * kLanes, v);
  }
  store(sums, total);
  store(tops, top);
}

inline void write_codes(const float* weights, float inverse, int8_t* codes) {
  for (int i = 0; i < 4; i++) {
    V scaled = mul(load(weights + i * kLanes), set(inverse));
    store_i8(codes + i * kLanes, round_to_int(scaled));
  }
}

// Up to kLanes rows of the list from first on. Each step goes over all of them before the next: the
// sums and maxima across lanes wait long for their operands.
inline void weigh_some(const Sums& sums, float* scores, const RowList& list, int64_t first,
                       const uint64_t* masks, const float* value_scales) {
  int64_t n = smaller(kLanes, list.count - first);
  int64_t rows[kLanes];
  float before[kLanes] = {}, high[kLanes] = {}, factors[kLanes], totals[kLanes];
  float lane_sums[kLanes * kLanes], lane_tops[kLanes * kLanes];
  for (int64_t i = 0; i < n; i++) {
    rows[i] = list.at(first + i);
    float best = largest_score(scores + rows[i] * kBlock, masks[first + i]);
    before[i] = sums.high[rows[i]];
    high[i] = best > before[i] ? best : before[i];
  }
  store(factors, exp2(sub(load(before), load(high))));
  for (int64_t i = 0; i < n; i++) {
    weigh_row(scores + rows[i] * kBlock, masks[first + i], high[i], value_scales,
              lane_sums + i * kLanes, lane_tops + i * kLanes);
  }
  for (int64_t i = 0; i < n; i++) totals[i] = sum(load(lane_sums + i * kLanes));
  for (int64_t i = 0; i < n; i++) {
    sums.factors[rows[i]] = factors[i];
    sums.total[rows[i]] = sums.total[rows[i]] * factors[i] + totals[i];
    sums.high[rows[i]] = high[i];
  }
  if (!value_scales) return;
  for (int64_t i = 0; i < n; i++) {
    float top = largest(load(lane_tops + i * kLanes));
    sums.steps[rows[i]] = top * (1.0f / 127.0f);
    factors[i] = top > 1e-33f ? 127.0f / top : 0.0f;
  }
  for (int64_t i = 0; i < n; i++) {
    write_codes(scores + rows[i] * kBlock, factors[i], sums.codes + rows[i] * kBlock);
  }
}

// masks[i]: the tokens that row i of the list sees. value_scales: of int8 values, else null.
inline void weigh_rows(const Sums& sums, float* scores, const RowList& list, const uint64_t* masks,
                       const float* value_scales) {
  for (int64_t i = 0; i < list.count; i += kLanes) {
    weigh_some(sums, scores, list, i, masks, value_scales);
  }
}

ARK_KERNEL_END
