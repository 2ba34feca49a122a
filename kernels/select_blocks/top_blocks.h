// From scores of compressed windows to the blocks of one query: pooling, forced blocks, exact
// top-k.
#pragma once

#include "kernel_check.h"

ARK_KERNEL_BEGIN

// The logarithm of a score of zero: below every real one, and yet a block that can be chosen.
constexpr float kNever = -1e30f;

struct Choice {
  int64_t ratio;  // windows that start in a block
  int64_t init_blocks;
  int64_t local_blocks;
  int64_t topk;
  bool generation_b;
};

// Larger floats give larger integers; 0 is left for blocks that cannot be chosen.
inline uint32_t sort_key(float score) {
  uint32_t bits;
  memcpy(&bits, &score, sizeof(bits));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Windows that start before this one overlap a block that is not local.
inline int64_t windows_of_choice(const Choice& c, int64_t last) {
  return c.ratio * larger(0, last - c.local_blocks + (c.generation_b ? 0 : 1));
}

// The key of every block up to last: the best of the windows that overlap it, or its mark.
inline void pool_blocks(const Choice& c, const float* windows, int64_t visible, int64_t last,
                        uint32_t* keys) {
  for (int64_t b = 0; b <= last; b++) {
    int64_t start = larger(0, c.ratio * b - 1);
    int64_t end = smaller(visible, c.ratio * b + c.ratio);
    bool local = c.generation_b ? b >= last - c.local_blocks : b > last - c.local_blocks;
    float best = -kInfinity;
    if (b < c.init_blocks || (c.generation_b && local)) {
      best = kInfinity;
      // Generation A attends to its window apart from what it chooses by score.
    } else if (!local) {
      for (int64_t j = start; j < end; j++) best = windows[j] > best ? windows[j] : best;
    }
    keys[b] = best > -kInfinity ? sort_key(best) : 0;
  }
  if (c.generation_b) return;
  for (int64_t b = larger(0, last - c.local_blocks + 1); b <= last; b++) keys[b] = 0;
}

// The count-th largest key and how many of its equals belong to the count largest.
struct Threshold {
  uint32_t key;
  int64_t equals;
};
// spare: room for n keys.
inline Threshold find_threshold(const uint32_t* keys, int64_t n, int64_t count, uint32_t* spare) {
  int64_t left = 0;
  for (int64_t i = 0; i < n; i++) {
    spare[left] = keys[i];
    left += keys[i] != 0;
  }
  if (count <= 0) return {0xffffffffu, 0};
  if (left <= count) return {0, 0};
  // One byte of the key at a time, from the highest; those that agree so far stay in spare.
  Threshold t = {0, count};
  for (int shift = 24; shift >= 0; shift -= 8) {
    int64_t histogram[256] = {};
    for (int64_t i = 0; i < left; i++) histogram[spare[i] >> shift & 255]++;
    uint32_t digit = 255;
    while (t.equals > histogram[digit]) t.equals -= histogram[digit--];
    t.key |= digit << shift;
    int64_t kept = 0;
    for (int64_t i = 0; i < left; i++) {
      uint32_t key = spare[i];
      spare[kept] = key;
      kept += (key >> shift & 255) == digit;
    }
    left = kept;
  }
  return t;
}

// Writes count and ascending block ids, ties to the smaller id; the rest of the row becomes -1.
inline void choose_blocks(const Choice& c, const uint32_t* keys, int64_t last, uint32_t* spare,
                          int32_t* row, int64_t most) {
  Threshold t = find_threshold(keys, last + 1, c.generation_b ? most : c.topk, spare);
  int32_t count = 0;
  for (int64_t b = 0; b <= last && count < most; b++) {
    bool taken = keys[b] > t.key;
    if (keys[b] == t.key && keys[b] != 0 && t.equals > 0) {
      taken = true;
      t.equals--;
    }
    if (!c.generation_b && b > last - c.local_blocks) taken = true;
    if (taken) row[1 + count++] = static_cast<int32_t>(b);
  }
  row[0] = count;
  for (int64_t i = count; i < most; i++) row[1 + i] = -1;
}

ARK_KERNEL_END
