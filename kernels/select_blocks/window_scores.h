// A window's score: the sum over the group's heads of exp(score - lse), kept as its logarithm. All
// powers and logarithms have base 2, of which queries know: they are multiplied by log2(e).
#pragma once

#include "score_windows.h"

ARK_KERNEL_BEGIN

// Windows whose sums of exponentials are added up alone, so that several threads may share one
// query and every number of threads gives the same bits.
constexpr int64_t kSegment = 8 * kKvBlock;
// Below any score.
constexpr float kLowest = -1e30f;
// A sum of powers whose logarithm is no farther from 0 met no bound of exp2.
constexpr float kSafe = 86.0f;

// The compressed keys of one kv head.
struct Windows {
  const char* keys;
  int64_t block_bytes;
};

inline uint32_t lanes_below(int64_t n) { return n >= kLanes ? 0xffff : n <= 0 ? 0 : (1u << n) - 1; }

// Running sums of powers of a row, one per lane: sums of 2^(score - high).
struct LaneSums {
  float* high;   // [rows][16]
  float* total;  // [rows][16]
};

inline void add_block(const float* scores, int64_t visible, float* high, float* total) {
  V score[4];
  V before = load(high);
  V top = before;
  for (int i = 0; i < 4; i++) {
    int64_t n = visible - i * kLanes;
    V s = load(scores + i * kLanes);
    score[i] = n >= kLanes ? s : select(lanes_below(n), s, set(kLowest));
    top = max(score[i], top);
  }
  V sums = mul(load(total), exp2(sub(before, top)));
  for (int i = 0; i < 4; i++) {
    if (visible > i * kLanes) sums = add(sums, exp2(sub(score[i], top)));
  }
  store(high, top);
  store(total, sums);
}

// The logarithm of sums of powers over a segment: [0] the largest score, [1] the sum relative to
// it. visible[r] windows of the cache count for row r.
inline void sum_segment(const Queries& q, const Windows& windows, int64_t segment,
                        const int64_t* visible, const Strip& strip, const LaneSums& lanes,
                        float* partial) {
  int64_t most = 0;
  for (int64_t r = 0; r < q.rows; r++) most = larger(most, visible[r]);
  int64_t end = smaller(most, (segment + 1) * kSegment);
  for (int64_t i = 0; i < q.rows * kLanes; i += kLanes) {
    store(lanes.high + i, set(kLowest));
    store(lanes.total + i, zero());
  }
  for (int64_t w = segment * kSegment; w < end; w += kKvBlock) {
    const char* block = windows.keys + w / kKvBlock * windows.block_bytes;
    score_block(q, block, smaller(kKvBlock, end - w), strip);
    for (int64_t r = 0; r < q.rows; r++) {
      if (visible[r] <= w) continue;
      add_block(strip.scores + r * kKvBlock, visible[r] - w, lanes.high + r * kLanes,
                lanes.total + r * kLanes);
    }
  }
  for (int64_t r = 0; r < q.rows; r++) {
    V high = load(lanes.high + r * kLanes);
    float top = largest(high);
    V total = mul(load(lanes.total + r * kLanes), exp2(sub(high, set(top))));
    partial[2 * r] = top;
    partial[2 * r + 1] = sum(total);
  }
}

// lse[r] from the partial sums [segments][rows][2].
inline void merge_segments(const float* partial, int64_t segments, int64_t rows, float* lse) {
  for (int64_t r = 0; r < rows; r++) {
    float high = kLowest;
    for (int64_t s = 0; s < segments; s++) {
      float top = partial[(s * rows + r) * 2];
      high = top > high ? top : high;
    }
    float total = 0;
    for (int64_t s = 0; s < segments; s++) {
      const float* p = partial + (s * rows + r) * 2;
      if (p[0] > kLowest) total += p[1] * exp2_one(p[0] - high);
    }
    lse[r] = high + kLog2E * log_one(total);
  }
}

inline V log2(V x) { return mul(log(x), set(kLog2E)); }

// The sum of 2^(scores[g] - lse[g]) of 16 windows.
inline V sum_heads(const float* scores, const float* lse, int64_t heads) {
  V total = zero();
  for (int64_t g = 0; g < heads; g++) {
    V value = sub(load(scores + g * kKvBlock), set(lse[g]));
    total = add(total, exp2(min(value, set(126.0f))));
  }
  return total;
}

// Its logarithm: of total, or anew without bounds.
inline V log_of_sum(V total, const float* scores, const float* lse, int64_t heads, uint32_t lanes) {
  V result = log2(total);
  if (largest(abs(select(lanes, result, zero()))) <= kSafe) return result;
  V top = set(kLowest);
  for (int64_t g = 0; g < heads; g++) {
    top = max(sub(load(scores + g * kKvBlock), set(lse[g])), top);
  }
  total = zero();
  for (int64_t g = 0; g < heads; g++) {
    V value = sub(load(scores + g * kKvBlock), set(lse[g]));
    total = add(total, exp2(sub(value, top)));
  }
  return add(top, log2(total));
}

ARK_KERNEL_END
