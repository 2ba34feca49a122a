// A product in progress, and how its outputs are written.
#pragma once

#include "normalize.h"
#include "row_tiles.h"

ARK_KERNEL_BEGIN

constexpr int64_t kMostItems = 256;

struct Product {
  Weights w;
  Activations a;
  const Operand* x;
  const float* norm;  // [inputs], or null
  float epsilon;
  float* normalized;  // rows of x, or one per thread
  const Operand* y;
  const Operand* residual;
  float scale;
  int64_t rows;
  int64_t panels;
  float* totals;                   // [threads][kTotals]
  int64_t bounds[kMostItems + 1];  // of few rows: where items of parallel work begin
  // Of many rows with int8 activations.
  RowTiles tiles;
  char* buffers;  // [threads][buffer_bytes]
  int64_t buffer_bytes;
};

// Normalizes and quantizes a row, as the product wants it.
inline void prepare_item(void* user, int64_t index, int32_t thread) {
  const Product& p = *static_cast<const Product*>(user);
  const float* x = row<float>(*p.x, index);
  if (p.norm) {
    float* y = p.normalized + (p.a.codes ? thread : index) * p.w.inputs;
    normalize(x, p.norm, p.w.inputs, p.epsilon, y);
    x = y;
  }
  if (!is_float_type(p.w.type)) prepare_row(p.w, p.a, x, index);
}
inline void prepare_rows(const Call& call, Product* p) {
  if (p->norm || !is_float_type(p->w.type)) run_parallel(call, p->rows, prepare_item, p);
}

// Of one row the outputs of the panel at a place. The odd place of a pair comes right after the
// even one, whose outputs then wait in y.
inline void write_outputs(const Product& p, int64_t row_index, int64_t place, const float* totals) {
  V value = mul(set(p.scale), load(totals));
  float* y = row<float>(*p.y, row_index);
  if (p.w.gated) {
    y += place / 2 * kLanes;
    if (place % 2) {
      V gate = load(y);
      V sigmoid_inverse = add(set(1.0f), exp(sub(zero(), gate)));
      value = mul(div(gate, sigmoid_inverse), value);
    }
    store(y, value);
    return;
  }
  int64_t column = place * kLanes;
  int64_t n = p.w.outputs - column;
  if (p.residual) {
    value = add(load_upto(row<float>(*p.residual, row_index) + column, n), value);
  }
  store_upto(y + column, value, n);
}

ARK_KERNEL_END
