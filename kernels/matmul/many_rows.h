// Prefill with fp32 activations: blocks of rows by blocks of panels, each with its inputs in the
// second-level cache.
#pragma once

#include "gemm_int8.h"

ARK_KERNEL_BEGIN

constexpr int64_t kFloatRows = 128;  // rows by panels per item of parallel work,
constexpr int64_t kPanelBlock = 8;
constexpr int64_t kBytesBlock = 2048;  // and bytes per row that stay in the second-level cache
constexpr int64_t kTotals = kFloatRows * kPanelBlock * kLanes;

inline void run_block(void* user, int64_t index, int32_t thread) {
  const Product& p = *static_cast<const Product*>(user);
  int64_t row_blocks = quotient_up(p.rows, kFloatRows);
  int64_t row = index % row_blocks * kFloatRows;
  int64_t rows = smaller(kFloatRows, p.rows - row);
  int64_t panel = index / row_blocks * kPanelBlock;
  int64_t panels = smaller(kPanelBlock, p.panels - panel);
  float* totals = p.totals + thread * kTotals;
  constexpr int64_t stride = kPanelBlock * kLanes;
  memset(totals, 0, kTotals * sizeof(float));
  int64_t unit = is_float_type(p.w.type) ? kFloatBlock : p.w.x_group;
  int64_t block = larger(unit, kBytesBlock / 4 / unit * unit);
  for (int64_t first = 0; first < p.w.inputs; first += block) {
    int64_t last = smaller(first + block, p.w.inputs);
    for (int64_t i = 0; i < panels; i++) {
      tile_rows(p, row, rows, panel_at(p.w, panel + i), first, last, totals + i * kLanes, stride);
    }
  }
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t i = 0; i < panels; i++) {
      write_outputs(p, row + r, panel + i, totals + r * stride + i * kLanes);
    }
  }
}

inline void multiply_many_rows(const Call& call, Product* p) {
  prepare_rows(call, p);
  int64_t units = quotient_up(p->rows, kFloatRows) * quotient_up(p->panels, kPanelBlock);
  run_parallel(call, units, run_block, p);
}

ARK_KERNEL_END
