// Products of many rows with int8 activations: a row block's weights are unpacked once, a block of
// inputs at a time, and tiles of integer products (gemm_tile.h) are scaled into fp32 totals. Every
// row's arithmetic is that of tiles_int8.h, so its bits do not depend on which of them computed it.
#pragma once

#include "few_rows.h"

ARK_KERNEL_BEGIN

constexpr int64_t kItemPanels = 8;  // per item of parallel work; they share the activations
static_assert(kItemPanels % kTilePanels == 0, "an item is whole tiles");
static_assert(kItemPanels % 2 == 0, "an item is whole pairs of a gate and what it gates");
constexpr int64_t kItemTotals = kRowBlock * kItemPanels * kLanes;

// One thread's weights as a tile reads them, and sums.
struct GemmBuffers {
  uint8_t* weights;  // [kTilePanels][inputs of a block / kTileStep][16][kTileStep]
  float* scales;     // [groups of a block][kTilePanels][16], as all three
  float* minimums;
  int32_t* zeros;
  float* totals;  // [kItemPanels/kTilePanels][kRowBlock][kTilePanels][16]
  float* fine;    // the same, of fine codes
};

// Inputs that are unpacked at a time: whole groups.
ARK_INLINE int64_t block_inputs(const Weights& w) {
  return smaller(w.inputs, larger(w.x_group, kBlockInputs / w.x_group * w.x_group));
}

inline GemmBuffers place_buffers(const Weights& w, Cursor* at) {
  GemmBuffers b;
  int64_t cells = block_inputs(w) / w.x_group * kTilePanels * kLanes;
  b.weights = at->take<uint8_t>(block_inputs(w) * kTilePanels * kLanes);
  b.scales = at->take<float>(cells);
  b.minimums = at->take<float>(cells);
  b.zeros = at->take<int32_t>(cells);
  b.totals = at->take<float>(kItemTotals);
  b.fine = at->take<float>(kItemTotals);
  return b;
}
inline int64_t buffer_bytes(const Weights& w) {
  Cursor at = {nullptr, 0};
  place_buffers(w, &at);
  return at.used;
}

// ---- unpacking ----------------------------------------------------------------------------------

inline void unpack_codes(const Weights& w, const char* codes, int64_t inputs, uint8_t* to) {
  if (w.type == DType::u2) {
    for (int64_t k = 0; k < inputs; k += 16, codes += 64, to += 256) {
      B bytes = load_bytes(codes);
      unpack_step(codes_u2<0>(bytes), codes_u2<1>(bytes), to);
      unpack_step(codes_u2<2>(bytes), codes_u2<3>(bytes), to + 128);
    }
  } else if (w.type == DType::u4) {
    for (int64_t k = 0; k < inputs; k += 8, codes += 64, to += 128) {
      B low, high;
      unpack_u4(reinterpret_cast<const uint8_t*>(codes), &low, &high);
      unpack_step(low, high, to);
    }
  } else {
    for (int64_t k = 0; k < inputs; k += 8, codes += 128, to += 128) {
      unpack_step(tile_bytes(load_bytes(codes)), tile_bytes(load_bytes(codes + 64)), to);
    }
  }
}

// Groups [first, first + groups) of the panels of a tile. What lies beyond the last panel keeps
// old bytes: those products are never written.
inline void unpack_panels(const Weights& w, int64_t panel_index, int64_t panels, int64_t first,
                          int64_t groups, int64_t apart, const GemmBuffers& b) {
  int64_t span = w.group / w.x_group;
  for (int64_t c = 0; c < panels; c++) {
    int64_t at = panel_at(w, panel_index + c);
    const char* codes = panel(w, at) + panel_bytes(w) / w.x_groups * first;
    unpack_codes(w, codes, groups * w.x_group, b.weights + c * apart);
    for (int64_t g = 0; g < groups; g++) {
      int64_t slot = at * w.groups + (first + g) / span;
      int64_t to = (g * kTilePanels + c) * kLanes;
      store(b.scales + to, load_scales(w, slot));
      if (w.kind == Offsets::minimum) store(b.minimums + to, load_minimums(w, slot));
      if (w.kind == Offsets::zero_point) {
        int32_t bias = (w.type == DType::i8 ? kI8Bias : 0) - middle_code(w.type, w.kind);
        I zeros = add(load_zero_points(w, slot), iset(bias));
        memcpy(b.zeros + to, &zeros, sizeof(zeros));
      }
    }
  }
}

// ---- tiles --------------------------------------------------------------------------------------

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

// Adds groups of a tile to its totals [kTileRows][kTilePanels][16].
template <DType kCodes, Offsets kKind>
inline void main_tile(const Weights& w, const RowTiles& t, const GemmBuffers& b, int64_t tile,
                      int64_t first, int64_t groups, int64_t apart, float* totals) {
  const int64_t row_bytes = arranged_bytes(w);
  const int8_t* x = t.codes + (tile * w.x_groups + first) * row_bytes * kTileRows;
  const uint8_t* weights = b.weights;
  const float* scales = b.scales;
  const float* minimums = b.minimums;
  const int32_t* zeros = b.zeros;
  int64_t at = (tile * w.x_groups + first) * kTileRows;
  for (int64_t g = 0; g < groups; g++) {
    const int32_t* corrections = t.corrections + at;
    const float* steps = t.scales + at;
    const float* sums = t.sums + at;
    multiply_tile<kCodes, kKind>(
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
    weights += w.x_group * kLanes;
    scales += kTilePanels * kLanes;
    minimums += kTilePanels * kLanes;
    zeros += kTilePanels * kLanes;
    at += kTileRows;
  }
}

// Adds the fine codes of one group of a row block to totals [kRowBlock][kTilePanels][16].
template <DType kCodes, Offsets kKind>
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
    multiply_tile<kCodes, kKind>(
        weights, apart, x, w.x_group,
        [&](int i) { return begin_dot<kCodes, kKind>(corrections, zeros, i); },
        [&](int i, I dot) {
          int r = i / kTilePanels, c = i % kTilePanels;
          if (r >= count) return;
          float* to = totals + (rows[r] * kTilePanels + c) * kLanes;
          V scale = mul(load(scales + c * kLanes), set(steps[r]));
          store(to, fma(to_float(dot), scale, load(to)));
        });
    x += row_bytes * kTileRows;
    at += kTileRows;
    count -= kTileRows;
  }
}

// One row block by the panels of an item. Panels take turns within a block of inputs, for which the
// rows' codes stay in the second-level cache.
template <DType kCodes, Offsets kKind>
inline void multiply_panels(const Product& p, const GemmBuffers& b, int64_t block,
                            int64_t first_panel, int64_t panels) {
  const Weights& w = p.w;
  int64_t row = block * kRowBlock;
  int64_t tiles = quotient_up(smaller(kRowBlock, p.rows - row), kTileRows);
  int64_t most = block_inputs(w) / w.x_group;
  int64_t apart = block_inputs(w) * kLanes;
  constexpr int64_t kTileTotals = kTileRows * kTilePanels * kLanes;
  for (int64_t first = 0; first < w.x_groups; first += most) {
    int64_t groups = smaller(most, w.x_groups - first);
    for (int64_t c = 0; c < panels; c += kTilePanels) {
      unpack_panels(w, first_panel + c, smaller(kTilePanels, panels - c), first, groups, apart, b);
      float* totals = b.totals + c * kRowBlock * kLanes;
      float* fine = b.fine + c * kRowBlock * kLanes;
      for (int64_t i = 0; i < tiles; i++) {
        main_tile<kCodes, kKind>(w, p.tiles, b, row / kTileRows + i, first, groups, apart,
                                 totals + i * kTileTotals);
      }
      for (int64_t g = 0; g < groups; g++) {
        fine_tiles<kCodes, kKind>(p, b, block, first + g, b.weights + g * w.x_group * kLanes, apart,
                                  g * kTilePanels * kLanes, fine);
      }
    }
  }
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

// ---- work ---------------------------------------------------------------------------------------

// Panels of an item that are multiplied together: with one block of inputs as few as a tile has, so
// that their totals stay in a near cache.
ARK_INLINE int64_t panels_together(const Weights& w) {
  return block_inputs(w) < w.inputs ? kItemPanels : kTilePanels;
}

inline void multiply_item(void* user, int64_t index, int32_t thread) {
  const Product& p = *static_cast<const Product*>(user);
  Cursor at = {p.buffers + thread * p.buffer_bytes, 0};
  GemmBuffers b = place_buffers(p.w, &at);
  int64_t blocks = quotient_up(p.rows, kRowBlock);
  int64_t block = index % blocks;
  int64_t rows = smaller(kRowBlock, p.rows - block * kRowBlock);
  int64_t first = index / blocks * kItemPanels;
  int64_t last = smaller(first + kItemPanels, p.panels);
  constexpr int64_t kApart = kRowBlock * kTilePanels * kLanes;
  begin_tiles(p.w.x_group);
  for (int64_t panel = first; panel < last; panel += panels_together(p.w)) {
    int64_t panels = smaller(panels_together(p.w), last - panel);
    size_t bytes = static_cast<size_t>(round_up(panels, kTilePanels) * kRowBlock * kLanes) * 4;
    memset(b.totals, 0, bytes);
    memset(b.fine, 0, bytes);
    multiply_panels(p, b, block, panel, panels);
    for (int64_t r = 0; r < rows; r++) {
      for (int64_t i = 0; i < panels; i++) {
        int64_t from = i / kTilePanels * kApart + (r * kTilePanels + i % kTilePanels) * kLanes;
        store(b.totals + from, add(load(b.totals + from), load(b.fine + from)));
        write_outputs(p, block * kRowBlock + r, panel + i, b.totals + from);
      }
    }
  }
  end_tiles();
}

// A tile of rows is arranged while its codes are in the first-level cache.
inline void arrange_item(void* user, int64_t index, int32_t thread) {
  const Product& p = *static_cast<const Product*>(user);
  int64_t last = smaller((index + 1) * kTileRows, p.rows);
  for (int64_t row = index * kTileRows; row < last; row++) prepare_item(user, row, thread);
  arrange_tile(p.w, p.a, p.rows, p.tiles, index);
}
inline void gather_item(void* user, int64_t index, int32_t) {
  const Product& p = *static_cast<const Product*>(user);
  gather_fine(p.w, p.a, p.rows, p.tiles, index / p.w.x_groups, index % p.w.x_groups);
}

inline void multiply_int8(const Call& call, Product* p) {
  int64_t blocks = quotient_up(p->rows, kRowBlock);
  run_parallel(call, quotient_up(p->rows, kTileRows), arrange_item, p);
  run_parallel(call, blocks * p->w.x_groups, gather_item, p);
  run_parallel(call, blocks * quotient_up(p->panels, kItemPanels), multiply_item, p);
}

ARK_KERNEL_END
