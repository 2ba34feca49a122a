// A product in progress, and how its outputs are written.
#pragma once

#include "row_tiles.h"

ARK_KERNEL_BEGIN

struct Product {
  Weights w;
  Activations a;
  const Operand* y;
  const Operand* residual;
  float scale;
  int64_t rows;
  int64_t panels;
  int64_t panels_per_unit;
  float* totals;  // [threads][kTotals]
  // Of many rows with int8 activations.
  RowTiles tiles;
  char* buffers;  // [threads][buffer_bytes]
  int64_t buffer_bytes;
};

inline void write_outputs(const Product& p, int64_t row_index, int64_t panel, const float* totals) {
  int64_t column = panel * kLanes;
  int64_t n = p.w.outputs - column;
  V value = mul(set(p.scale), load(totals));
  if (p.residual) {
    value = add(load_upto(row<float>(*p.residual, row_index) + column, n), value);
  }
  store_upto(row<float>(*p.y, row_index) + column, value, n);
}

ARK_KERNEL_END
