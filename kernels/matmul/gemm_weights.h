// Blocks of weights as the tiles of gemm_int8.h read them, and what a thread needs for that.
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
  int64_t block = block_inputs(w);
  int64_t cells = block / w.x_group * kTilePanels * kLanes;
  b.weights = at->take<uint8_t>(block * kTilePanels * kLanes);
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
                          int64_t groups, int64_t apart, bool packed, const GemmBuffers& b) {
  int64_t span = w.group / w.x_group;
  int64_t first_slot = first / span;
  int64_t first_left = span - first % span;
  for (int64_t c = 0; c < panels; c++) {
    int64_t at = panel_at(w, panel_index + c);
    const char* codes = panel(w, at) + panel_bytes(w) / w.x_groups * first;
    if (!packed) unpack_codes(w, codes, groups * w.x_group, b.weights + c * apart);
    int64_t slot = at * w.groups + first_slot;
    int64_t left = first_left;
    for (int64_t g = 0; g < groups; g++) {
      int64_t to = (g * kTilePanels + c) * kLanes;
      prefetch_scales(w, slot);
      store(b.scales + to, load_scales(w, slot));
      if (w.kind == Offsets::minimum) store(b.minimums + to, load_minimums(w, slot));
      if (w.kind == Offsets::zero_point) {
        int32_t bias = (w.type == DType::i8 ? kI8Bias : 0) - middle_code(w.type, w.kind);
        I zeros = add(load_zero_points(w, slot), iset(bias));
        memcpy(b.zeros + to, &zeros, sizeof(zeros));
      }
      if (--left == 0) {
        left = span;
        slot++;
      }
    }
  }
}

ARK_KERNEL_END
