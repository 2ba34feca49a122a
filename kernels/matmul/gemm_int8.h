// Products of many rows with int8 activations: a row block's weights are unpacked once, a block of
// inputs at a time, and tiles of integer products (gemm_tile.h) are scaled into fp32 totals. Of few
// rows tiles read packed codes instead, where they can. Every row's arithmetic is that of
// tiles_int8.h, so its bits do not depend on which of them computed it.
#pragma once

#include "gemm_weights.h"

ARK_KERNEL_BEGIN

// Whether a product with int8 activations is done here and not in few_rows.h.
ARK_INLINE bool is_tiled(const Weights& w, int64_t rows) {
  return rows > kFewRows || (rows >= kTiledRows && w.type == DType::u4);
}

// What the dot product of a cell begins with: the correction for the code that stands for zero.
template <DType kCodes, Offsets kKind>
ARK_INLINE I begin_dot(const int32_t* corrections, const int32_t* zeros, int cell) {
  // Symmetric codes that count from their middle need none, and codes with a minimum from 0.
  if (kKind == Offsets::symmetric && middle_code(kCodes, kKind) != 0) return izero();
  if (kKind == Offsets::minimum && kCodes != DType::i8) return izero();
  I correction = iset(corrections[cell / kTilePanels]);
  if (kKind != Offsets::zero_point) return correction;
  return mul(load_words(zeros + cell % kTilePanels * kLanes), correction);
}

template <int N>
struct Count {
  static constexpr int value = N;
};
// tile(Count<rows>()), with the rows a tile may have.
template <typename Tile>
ARK_INLINE void with_rows(int64_t rows, const Tile& tile) {
  if constexpr (kPartialTiles) {
    if (rows == 1) return tile(Count<1>());
    if (rows == 2) return tile(Count<2>());
    if (rows == 3) return tile(Count<3>());
    if (rows == 4) return tile(Count<4>());
    if (rows == 5) return tile(Count<5>());
  }
  tile(Count<kTileRows>());
}

// Adds groups of a tile to its totals [kTileRows][kTilePanels][16].
template <DType kCodes, Offsets kKind, int R, bool kPacked>
inline void main_tile(const Weights& w, const RowTiles& t, const GemmBuffers& b, int64_t tile,
                      int64_t first, int64_t groups, const uint8_t* weights, int64_t apart,
                      float* totals) {
  const int64_t row_bytes = arranged_bytes(w);
  const int8_t* x = t.codes + (tile * w.x_groups + first) * row_bytes * kTileRows;
  const float* scales = b.scales;
  const float* minimums = b.minimums;
  const int32_t* zeros = b.zeros;
  int64_t at = (tile * w.x_groups + first) * kTileRows;
  for (int64_t g = 0; g < groups; g++) {
    const int32_t* corrections = t.corrections + at;
    const float* steps = t.scales + at;
    const float* sums = t.sums + at;
    multiply_tile<kCodes, kKind, R, kPacked>(
        weights, apart, x, w.x_group,
        [&](int i) { return begin_dot<kCodes, kKind>(corrections, zeros, i); },
        [&](int i, I dot) {
          int r = i / kTilePanels, c = i % kTilePanels;
          V scale = load(scales + c * kLanes);
          V total = load(totals + i * kLanes);
          total = fma(to_float(dot), mul(scale, set(steps[r])), total);
          if (kKind == Offsets::minimum) {
            total = fma(load(minimums + c * kLanes), set(sums[r]), total);
          }
          store(totals + i * kLanes, total);
        });
    x += row_bytes * kTileRows;
    weights += w.x_group * (kPacked ? 8 : kLanes);
    scales += kTilePanels * kLanes;
    minimums += kTilePanels * kLanes;
    zeros += kTilePanels * kLanes;
    at += kTileRows;
  }
}

// Adds the fine codes of one group of a row block to totals [kRowBlock][kTilePanels][16].
template <DType kCodes, Offsets kKind, bool kPacked>
inline void fine_tiles(const Product& p, const GemmBuffers& b, int64_t block, int64_t group,
                       const uint8_t* weights, int64_t apart, int64_t cell, float* totals) {
  const Weights& w = p.w;
  const RowTiles& t = p.tiles;
  int64_t count = t.fine_counts[block * w.x_groups + group];
  int64_t at = fine_start(w, p.rows, block, group);
  const int64_t row_bytes = arranged_bytes(w);
  const int8_t* x = t.fine_codes + at * row_bytes;
  const float* scales = b.scales + cell;
  const int32_t* zeros = b.zeros + cell;
  while (count > 0) {
    const int32_t* corrections = t.fine_corrections + at;
    const float* steps = t.fine_scales + at;
    const int32_t* rows = t.fine_rows + at;
    with_rows(count, [&](auto rows_of_tile) {
      multiply_tile<kCodes, kKind, decltype(rows_of_tile)::value, kPacked>(
          weights, apart, x, w.x_group,
          [&](int i) { return begin_dot<kCodes, kKind>(corrections, zeros, i); },
          [&](int i, I dot) {
            int r = i / kTilePanels, c = i % kTilePanels;
            if (r >= count) return;
            float* to = totals + (rows[r] * kTilePanels + c) * kLanes;
            V scale = mul(load(scales + c * kLanes), set(steps[r]));
            store(to, fma(to_float(dot), scale, load(to)));
          });
    });
    x += row_bytes * kTileRows;
    at += kTileRows;
    count -= kTileRows;
  }
}

// One row block by the panels of an item. Panels take turns within a block of inputs, for which the
// rows' codes stay in the second-level cache.
template <DType kCodes, Offsets kKind, bool kPacked>
inline void multiply_panels(const Product& p, const GemmBuffers& b, int64_t block,
                            int64_t first_panel, int64_t panels) {
  const Weights& w = p.w;
  int64_t row = block * kRowBlock;
  int64_t rows = smaller(kRowBlock, p.rows - row);
  int64_t most = block_inputs(w) / w.x_group;
  int64_t apart = block_inputs(w) * kLanes;
  constexpr int64_t kTileTotals = kTileRows * kTilePanels * kLanes;
  for (int64_t first = 0; first < w.x_groups; first += most) {
    int64_t groups = smaller(most, w.x_groups - first);
    for (int64_t c = 0; c < panels; c += kTilePanels) {
      unpack_panels(w, first_panel + c, smaller(kTilePanels, panels - c), first, groups, apart,
                    kPacked, b);
      const uint8_t* weights = b.weights;
      if (kPacked) {
        const char* codes = panel(w, panel_at(w, first_panel + c)) + first * w.x_group * 8;
        weights = reinterpret_cast<const uint8_t*>(codes);
      }
      float* totals = b.totals + c * kRowBlock * kLanes;
      float* fine = b.fine + c * kRowBlock * kLanes;
      for (int64_t i = 0; i * kTileRows < rows; i++) {
        with_rows(rows - i * kTileRows, [&](auto rows_of_tile) {
          main_tile<kCodes, kKind, decltype(rows_of_tile)::value, kPacked>(
              w, p.tiles, b, row / kTileRows + i, first, groups, weights, apart,
              totals + i * kTileTotals);
        });
      }
      for (int64_t g = 0; g < groups; g++) {
        fine_tiles<kCodes, kKind, kPacked>(p, b, block, first + g,
                                           weights + g * w.x_group * (kPacked ? 8 : kLanes), apart,
                                           g * kTilePanels * kLanes, fine);
      }
    }
  }
}

template <DType kCodes, Offsets kKind>
inline void multiply_panels(const Product& p, const GemmBuffers& b, int64_t block,
                            int64_t first_panel, int64_t panels) {
  if constexpr (kPartialTiles && kCodes == DType::u4) {
    if (p.rows <= kFewRows) {
      multiply_panels<kCodes, kKind, true>(p, b, block, first_panel, panels);
      return;
    }
  }
  multiply_panels<kCodes, kKind, false>(p, b, block, first_panel, panels);
}

inline void multiply_panels(const Product& p, const GemmBuffers& b, int64_t block,
                            int64_t first_panel, int64_t panels) {
  const Weights& w = p.w;
  if (w.type == DType::u2) {
    multiply_panels<DType::u2, Offsets::symmetric>(p, b, block, first_panel, panels);
  } else if (w.type == DType::u4 && w.kind == Offsets::symmetric) {
    multiply_panels<DType::u4, Offsets::symmetric>(p, b, block, first_panel, panels);
  } else if (w.type == DType::u4 && w.kind == Offsets::zero_point) {
    multiply_panels<DType::u4, Offsets::zero_point>(p, b, block, first_panel, panels);
  } else if (w.type == DType::u4) {
    multiply_panels<DType::u4, Offsets::minimum>(p, b, block, first_panel, panels);
  } else if (w.kind == Offsets::symmetric) {
    multiply_panels<DType::i8, Offsets::symmetric>(p, b, block, first_panel, panels);
  } else if (w.kind == Offsets::zero_point) {
    multiply_panels<DType::i8, Offsets::zero_point>(p, b, block, first_panel, panels);
  } else {
    multiply_panels<DType::i8, Offsets::minimum>(p, b, block, first_panel, panels);
  }
}

// Panels of an item that are multiplied together: as few as a tile has, so that their totals stay
// in a near cache, unless the codes of a row block do not stay there from one panel to the next.
ARK_INLINE int64_t panels_together(const Weights& w, int64_t rows) {
  bool together = rows > kFewRows && block_inputs(w) < w.inputs;
  return together ? kItemPanels : kTilePanels;
}

// One row block by panels of an item, and its outputs.
inline void multiply_together(const Product& p, const GemmBuffers& b, int64_t block, int64_t panel,
                              int64_t panels) {
  // Tiles of one panel lie right after one another, tiles of the next one further on.
  constexpr int64_t kApart = kRowBlock * kTilePanels * kLanes;
  int64_t rows = smaller(kRowBlock, p.rows - block * kRowBlock);
  size_t bytes = static_cast<size_t>(padded_rows(rows) * kTilePanels * kLanes) * sizeof(float);
  for (int64_t i = 0; i * kTilePanels < panels; i++) {
    memset(b.totals + i * kApart, 0, bytes);
    memset(b.fine + i * kApart, 0, bytes);
  }
  multiply_panels(p, b, block, panel, panels);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t i = 0; i < panels; i++) {
      int64_t from = i / kTilePanels * kApart + (r * kTilePanels + i % kTilePanels) * kLanes;
      store(b.totals + from, add(load(b.totals + from), load(b.fine + from)));
      write_outputs(p, block * kRowBlock + r, panel + i, b.totals + from);
    }
  }
}

// One row block by panels [first, last). Of few rows all gates come before what they gate: each is
// a stream that prefetches run ahead in.
inline void multiply_range(const Product& p, int32_t thread, int64_t block, int64_t first,
                           int64_t last) {
  Cursor at = {p.buffers + thread * p.buffer_bytes, 0};
  GemmBuffers b = place_buffers(p.w, &at);
  int64_t together = panels_together(p.w, p.rows);
  int64_t turns = p.rows <= kFewRows && p.w.gated ? 2 : 1;
  begin_tiles(p.w.x_group);
  for (int64_t turn = 0; turn < turns; turn++) {
    for (int64_t panel = first + turn; panel < last; panel += turns * together) {
      multiply_together(p, b, block, panel, smaller(together, last - panel));
    }
  }
  end_tiles();
}

inline void multiply_few_item(void* user, int64_t index, int32_t thread) {
  const Product& p = *static_cast<const Product*>(user);
  prefetch_start(p, p.bounds[index]);
  multiply_range(p, thread, 0, p.bounds[index], p.bounds[index + 1]);
}
inline void multiply_item(void* user, int64_t index, int32_t thread) {
  const Product& p = *static_cast<const Product*>(user);
  int64_t blocks = quotient_up(p.rows, kRowBlock);
  int64_t first = index / blocks * kItemPanels;
  multiply_range(p, thread, index % blocks, first, smaller(first + kItemPanels, p.panels));
}

inline void arrange_item(void* user, int64_t index, int32_t) {
  const Product& p = *static_cast<const Product*>(user);
  arrange_tile(p.w, p.a, p.rows, p.tiles, index);
}
// Of many rows a tile is arranged while its codes are in the first-level cache.
inline void prepare_tile(void* user, int64_t index, int32_t thread) {
  const Product& p = *static_cast<const Product*>(user);
  int64_t last = smaller((index + 1) * kTileRows, p.rows);
  for (int64_t row = index * kTileRows; row < last; row++) prepare_item(user, row, thread);
  arrange_item(user, index, thread);
}
inline void gather_item(void* user, int64_t index, int32_t) {
  const Product& p = *static_cast<const Product*>(user);
  gather_fine(p.w, p.a, p.rows, p.tiles, index / p.w.x_groups, index % p.w.x_groups);
}

inline void multiply_int8(const Call& call, Product* p) {
  int64_t tiles = quotient_up(p->rows, kTileRows);
  int64_t blocks = quotient_up(p->rows, kRowBlock);
  if (p->rows <= kFewRows) {
    prepare_rows(call, p);
    run_parallel(call, tiles, arrange_item, p);
    run_parallel(call, p->w.x_groups, gather_item, p);
    run_parallel(call, cut_panels(call, p), multiply_few_item, p);
    return;
  }
  run_parallel(call, tiles, prepare_tile, p);
  run_parallel(call, blocks * p->w.x_groups, gather_item, p);
  run_parallel(call, blocks * quotient_up(p->panels, kItemPanels), multiply_item, p);
}

ARK_KERNEL_END
