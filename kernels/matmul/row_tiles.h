// Activations of many rows, arranged so that a tile of a product walks one stream of them.
//
// Rows are cut in tiles of kTileRows; a tile's codes are [inputs/step][kTileRows][step], where
// step = row_step(group).
// The fine codes are sparse: per block of kRowBlock rows and per group, those rows that have any
// are packed together in tiles of their own, so that they cost in proportion to their number.
#pragma once

#include "activations.h"
#include "gemm_tile.h"

ARK_KERNEL_BEGIN

// Rows that share one unpacking of the weights: whole tiles.
constexpr int64_t kRowBlock = (256 + kTileRows - 1) / kTileRows * kTileRows;

struct RowTiles {
  int8_t* codes;         // [tiles][groups][arranged_bytes/step][kTileRows][step]
  float* scales;         // [tiles][groups][kTileRows], as all three
  int32_t* corrections;  // what zero * code_sum takes from a dot product, or the negative code_sum
  float* sums;           // of the dequantized activations, for minimums
  // Of each row block and group; a block has room for all of its rows.
  int32_t* fine_counts;  // [blocks][groups]
  int8_t* fine_codes;    // [blocks][groups][room/kTileRows][arranged_bytes/step][kTileRows][step]
  float* fine_scales;    // [blocks][groups][room]
  int32_t* fine_corrections;
  int32_t* fine_rows;  // row within the block
};

ARK_INLINE int64_t padded_rows(int64_t rows) { return round_up(rows, kTileRows); }

// Bytes of a row's codes of one group, with the values that sums start from (gemm_tile.h).
ARK_INLINE int64_t arranged_bytes(const Weights& w) {
  int64_t span = start_span(w.type, w.kind);
  return span ? w.x_group + quotient_up(w.x_group, span) * kTileStep : w.x_group;
}

inline void place_row_tiles(const Weights& w, int64_t rows, Cursor* at, RowTiles* t) {
  int64_t padded = padded_rows(rows);
  int64_t groups = w.x_groups;
  int64_t bytes = arranged_bytes(w) * groups;
  t->codes = at->take<int8_t>(padded * bytes);
  t->scales = at->take<float>(padded * groups);
  t->corrections = at->take<int32_t>(padded * groups);
  t->sums = at->take<float>(padded * groups);
  t->fine_counts = at->take<int32_t>(quotient_up(rows, kRowBlock) * groups);
  t->fine_codes = at->take<int8_t>(padded * bytes);
  t->fine_scales = at->take<float>(padded * groups);
  t->fine_corrections = at->take<int32_t>(padded * groups);
  t->fine_rows = at->take<int32_t>(padded * groups);
}

// Codes of one row and group into their place in a tile.
ARK_INLINE void arrange_codes(const Weights& w, const int8_t* from, int8_t* to) {
  int64_t step = row_step(w.x_group);
  int64_t start_every = start_span(w.type, w.kind);
  int64_t span = start_every ? start_every : w.x_group;
  for (int64_t first = 0; first < w.x_group; first += span) {
    int64_t n = smaller(span, w.x_group - first);
    if (start_every) {
      int32_t start = start_of(from + first, n, middle_code(w.type, w.kind));
      memcpy(to, &start, sizeof(start));
      to += kTileRows * kTileStep;
    }
    for (int64_t k = 0; k < n; k += step, to += kTileRows * step) {
      memcpy(to, from + first + k, static_cast<size_t>(step));
    }
  }
}
ARK_INLINE void clear_codes(int64_t n, int64_t step, int8_t* to) {
  for (int64_t k = 0; k < n; k += step, to += kTileRows * step) {
    memset(to, 0, static_cast<size_t>(step));
  }
}

// The factor of a code sum that a dot product is short of; zero points multiply their own.
ARK_INLINE int32_t correction_of(const Weights& w, int32_t code_sum) {
  if (w.kind == Offsets::zero_point) return -code_sum;
  int32_t zero = w.kind == Offsets::minimum ? minimum_shift(w) : symmetric_zero(w);
  zero -= middle_code(w.type, w.kind);
  if (w.type == DType::i8) zero += kI8Bias;
  return -zero * code_sum;
}

// Arranges the main codes of one tile of rows, which prepare_row has quantized.
inline void arrange_tile(const Weights& w, const Activations& a, int64_t rows, const RowTiles& t,
                         int64_t tile) {
  int64_t step = row_step(w.x_group);
  int64_t bytes = arranged_bytes(w);
  for (int64_t r = 0; r < kTileRows; r++) {
    int64_t row = tile * kTileRows + r;
    int8_t* codes = t.codes + tile * kTileRows * bytes * w.x_groups + r * step;
    int64_t to = tile * w.x_groups * kTileRows + r;
    if (row >= rows) {
      clear_codes(bytes * w.x_groups, step, codes);
      for (int64_t g = 0; g < w.x_groups; g++, to += kTileRows) {
        t.scales[to] = 0;
        t.corrections[to] = 0;
        t.sums[to] = 0;
      }
      continue;
    }
    for (int64_t g = 0; g < w.x_groups; g++) {
      arrange_codes(w, a.codes + row * w.inputs + g * w.x_group, codes + g * bytes * kTileRows);
    }
    int64_t from = row * w.x_groups;
    for (int64_t g = 0; g < w.x_groups; g++, from++, to += kTileRows) {
      t.scales[to] = a.scales[from];
      t.corrections[to] = correction_of(w, a.code_sums[from]);
      if (w.kind == Offsets::minimum) t.sums[to] = a.sums[from];
    }
  }
}

// Where the fine tiles of a group of a row block begin, counted in rows.
ARK_INLINE int64_t fine_start(const Weights& w, int64_t rows, int64_t block, int64_t group) {
  int64_t first = block * kRowBlock;
  int64_t room = padded_rows(smaller(kRowBlock, rows - first));
  return first * w.x_groups + group * room;
}

// Gathers the rows of a block that have fine codes in a group.
inline void gather_fine(const Weights& w, const Activations& a, int64_t rows, const RowTiles& t,
                        int64_t block, int64_t group) {
  int64_t first = block * kRowBlock;
  int64_t last = smaller(first + kRowBlock, rows);
  int64_t start = fine_start(w, rows, block, group);
  int64_t step = row_step(w.x_group);
  int64_t bytes = arranged_bytes(w);
  int64_t n = 0;
  auto place_of = [&](int64_t i) {
    int64_t tile = (start + i) / kTileRows;
    return t.fine_codes + tile * kTileRows * bytes + i % kTileRows * step;
  };
  for (int64_t row = first; row < last; row++) {
    int64_t at = row * w.x_groups + group;
    if (!a.coarse[at]) continue;
    arrange_codes(w, a.fine_codes + row * w.inputs + group * w.x_group, place_of(n));
    t.fine_scales[start + n] = a.scales[at] * (1.0f / kFineSteps);
    t.fine_corrections[start + n] = correction_of(w, a.fine_sums[at]);
    t.fine_rows[start + n] = static_cast<int32_t>(row - first);
    n++;
  }
  t.fine_counts[block * w.x_groups + group] = static_cast<int32_t>(n);
  for (; n % kTileRows != 0; n++) {
    clear_codes(bytes, step, place_of(n));
    t.fine_scales[start + n] = 0;
    t.fine_corrections[start + n] = 0;
  }
}

ARK_KERNEL_END
