// Attention of 16 rows of a warp over tiles of keys: queries, scores, weights, sums of values.
//
// Rows are the query heads of a key-value head, which all read the same keys: with 16 of them, as
// MiniCPM4 has, they fill the rows of mma. An fp16 cache (arkinfer/tir/caches.py) holds keys as mma
// wants its second matrix, two dimensions of a key to a word; values go through ldmatrix, which
// turns them.
#pragma once

#include "common/instructions.cuh"

namespace ark {

constexpr int kHeads = ARK_HEADS, kKvHeads = ARK_KV_HEADS, kHeadDim = ARK_HEAD_DIM;
constexpr int kPerHead = kHeads / kKvHeads, kPairs = kHeadDim / 2;
constexpr int kSpan = 64;  // tokens of a block of a key cache
constexpr int kSteps = kHeadDim / 16, kDimTiles = kHeadDim / 8;
constexpr float kNever = -1e30f;  // below every score

static_assert(kPerHead <= 16, "the query heads of a key-value head are more than the rows of mma");
static_assert(kHeadDim % 16 == 0 && kHeadDim <= 128, "no tiles of this head_dim");

/// The rows g and g + 8 of a lane: query heads of a key-value head for one token or several.
struct Rows {
  const float* queries[2];  // null: no such row
  float* outputs[2];
  int position[2];  // the last key that it sees

  /// ``above`` rows of other warps come before; there are ``count`` of the tokens from ``first``
  /// on.
  __device__ __forceinline__ Rows(const float* q, float* y, int head, int first, int above,
                                  int count, int tokens, int past) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = above + threadIdx.x % 32 / 4 + 8 * r, token = first + row / kPerHead;
      const bool there = row < count && token < tokens;
      const size_t column = (head * kPerHead + row % kPerHead) * kHeadDim, at = token;
      queries[r] = there ? q + at * ARK_Q_STRIDE + ARK_Q_START + column : nullptr;
      outputs[r] = there ? y + at * ARK_Y_STRIDE + ARK_Y_START + column : nullptr;
      position[r] = there ? past + token : -1;
    }
  }
};

/// The queries of a warp's rows g and g + 8, as the first matrix of mma; scores come out as
/// logarithms to base 2.
struct Queries {
  uint32_t parts[kSteps][4];

  /// Rows that are not there are zero.
  __device__ __forceinline__ explicit Queries(const Rows& rows) {
    const int column = threadIdx.x % 4 * 2;
    constexpr float kScale = ARK_SCALE * 1.44269504f;
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* row = rows.queries[i % 2];
        const int at = s * 16 + i / 2 * 8 + column;
        parts[s][i] = row ? half2_of(row[at] * kScale, row[at + 1] * kScale) : 0;
      }
  }
};

/// A tile of keys and values in shared memory, fetched by kThreads threads together.
template <int kKeys, int kThreads>
struct Tile {
  // Lanes read words of 4 pairs and 8 keys at a time, and rows of 8 values: rows end with as many
  // words as put these into different banks.
  static_assert(kKeys % 16 == 0, "rows of keys would share banks");
  static constexpr int kKeyRow = kKeys + 8;
  static constexpr int kValueRow = kPairs + 4;
  static constexpr int kKeyWords = kPairs * kKeyRow, kValueWords = kKeys * kValueRow;

  static constexpr int kFetches = kPairs * kKeys / 4 / kThreads;  // of 16 bytes, by a thread
  static_assert(kPairs * kKeys / 4 % kThreads == 0, "threads do not share a tile out evenly");

  uint32_t *keys, *values;

  __device__ __forceinline__ explicit Tile(uint32_t* shared)
      : keys(shared), values(shared + kKeyWords) {}

  /// Begins to fetch the keys of tokens first .. first + kKeys - 1, which lie in one block of 64,
  /// if they are wanted.
  __device__ __forceinline__ void fetch_keys(const uint32_t* cache, int first, bool wanted,
                                             int thread) const {
    const uint32_t* from =
        cache + static_cast<size_t>(first / kSpan) * kPairs * kSpan + first % kSpan;
    if (wanted) {
#pragma unroll
      for (int n = 0; n < kFetches; ++n) {
        const Place<kKeys / 4> place(thread, n);
        copy_async(keys + (place.row * kKeyRow + place.four) + place.more * kKeyRow,
                   from + (place.row * kSpan + place.four) + place.more * kSpan, true);
      }
    }
    copies_commit();
  }

  /// The same of values; tokens behind ``last`` hold nothing yet, and become zeros.
  __device__ __forceinline__ void fetch_values(const uint32_t* cache, int first, int last,
                                               bool wanted, int thread) const {
    const uint32_t* from = cache + static_cast<size_t>(first) * kPairs;
    if (wanted) {
#pragma unroll
      for (int n = 0; n < kFetches; ++n) {
        const Place<kPairs / 4> place(thread, n);
        copy_async(values + (place.row * kValueRow + place.four) + place.more * kValueRow,
                   from + (place.row * kPairs + place.four) + place.more * kPairs,
                   first + place.row + place.more <= last);
      }
    }
    copies_commit();
  }

 private:
  /// Which four words a thread fetches. Where rows divide threads, its places are the same distance
  /// apart (``more``, a constant), which spares an address for each.
  template <int kRowFours>
  struct Place {
    int row, four, more;

    __device__ __forceinline__ Place(int thread, int n) {
      constexpr bool kEven = kThreads % kRowFours == 0;
      const int i = kEven ? thread : thread + n * kThreads;
      row = i / kRowFours;
      four = i % kRowFours * 4;
      more = kEven ? n * (kThreads / kRowFours) : 0;
    }
  };
};

/// What 16 rows have found so far. A lane has rows g (0) and g + 8 (1).
struct Found {
  float highest[2] = {kNever, kNever};
  float weight[2] = {0, 0};  // of this lane's keys alone, until all is done
  float sums[kDimTiles][4] = {};

  /// Takes a tile. ``seen`` counts, for each row, the keys of the tile that it sees.
  template <int kKeys, int kThreads, class Between>
  __device__ __forceinline__ void take(const Tile<kKeys, kThreads>& tile, const Queries& queries,
                                       const int (&seen)[2], Between between) {
    constexpr int kKeyTiles = kKeys / 8;
    using T = Tile<kKeys, kThreads>;
    const int lane = threadIdx.x % 32, across = lane / 4, along = lane % 4;
    float scores[kKeyTiles][4] = {};
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
        const uint32_t* at = tile.keys + (s * 8 + along) * T::kKeyRow + n * 8 + across;
        const uint32_t b[2] = {at[0], at[4 * T::kKeyRow]};
        multiply(scores[n], queries.parts[s], b);
      }
    uint32_t weights[kKeyTiles / 2][4];
    weigh<kKeyTiles>(scores, seen, along, weights);
    between();
#pragma unroll
    for (int k = 0; k < kKeyTiles / 2; ++k)
#pragma unroll
      for (int d = 0; d < kDimTiles; d += 2) {
        uint32_t b[4];
        load_matrices_turned(
            b, tile.values + (k * 16 + lane % 16) * T::kValueRow + d * 4 + lane / 16 * 4);
        const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
        multiply(sums[d], weights[k], first);
        multiply(sums[d + 1], weights[k], second);
      }
  }

  /// Turns scores into weights, as halves, and makes older sums fit a new maximum.
  template <int kKeyTiles>
  __device__ __forceinline__ void weigh(float (&scores)[kKeyTiles][4], const int (&seen)[2],
                                        int along, uint32_t (&weights)[kKeyTiles / 2][4]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float best = highest[r];
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float& score = scores[n][2 * r + j];
          if (n * 8 + along * 2 + j >= seen[r]) score = kNever;
          best = fmaxf(best, score);
        }
      best = fmaxf(best, from_lane_xor(best, 1));
      best = fmaxf(best, from_lane_xor(best, 2));
      const float older = exp2_fast(highest[r] - best);
      highest[r] = best;
      weight[r] *= older;
#pragma unroll
      for (int d = 0; d < kDimTiles; ++d) {
        sums[d][2 * r] *= older;
        sums[d][2 * r + 1] *= older;
      }
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
        float own[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const float score = scores[n][2 * r + j];
          // A row that has seen no key yet must not take these for the highest.
          own[j] = score > kNever ? exp2_fast(score - best) : 0;
          weight[r] += own[j];
        }
        weights[n / 2][n % 2 * 2 + r] = half2_of(own[0], own[1]);
      }
    }
  }

  /// Writes the rows, of which no other warp has keys.
  __device__ __forceinline__ void store(const Rows& rows) {
    finish();
    const int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (rows.outputs[r] == nullptr) continue;
      const float share = 1 / weight[r];
#pragma unroll
      for (int d = 0; d < kDimTiles; ++d) {
        rows.outputs[r][d * 8 + column] = sums[d][2 * r] * share;
        rows.outputs[r][d * 8 + column + 1] = sums[d][2 * r + 1] * share;
      }
    }
  }

  /// Joins the weights of the lanes of a row.
  __device__ __forceinline__ void finish() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      weight[r] += from_lane_xor(weight[r], 1);
      weight[r] += from_lane_xor(weight[r], 2);
    }
  }
};

}  // namespace ark
