// y = residual + scale * x · Wᵀ for packed float, 8-bit and 4-bit weights.
#include "tiles_float.h"
#include "tiles_int8.h"

ARK_KERNEL_BEGIN

enum { kX, kCodes, kScales, kOffsets, kResidual, kY };
enum { kScale, kActivations };
const char* const operand_names[] = {"x",         "codes", "?scales", "?offsets",
                                     "?residual", "y",     nullptr};
const char* const attribute_names[] = {"scale=1", "activations=0", nullptr};

constexpr int64_t kUnitBytes = 512 << 10;  // weights per item of parallel work with few rows
constexpr int64_t kFewRows = 16;           // up to here weights are read once per kRows rows
constexpr int64_t kRowBlock = 128;         // beyond: rows by panels per item of parallel work,
constexpr int64_t kPanelBlock = 8;
constexpr int64_t kBytesBlock = 2048;  // and bytes per row that stay in the second-level cache
constexpr int64_t kTotals = kRowBlock * kPanelBlock * kLanes;

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
};

bool use_int8(const Call& call) {
  return call.attributes[kActivations] == 0 && !is_float_type(call.operands[kCodes].dtype);
}

const char* check(const Call& call) {
  const Operand* o = call.operands;
  if (const char* wrong = check_weights(o[kCodes], o[kScales], o[kOffsets])) return wrong;
  if (!is_float_rows(o[kX], call) || o[kX].shape[1] != o[kCodes].shape[1]) {
    return "x must be f32 [tokens, inputs]";
  }
  if (!is_float_rows(o[kY], call) || o[kY].shape[1] != o[kCodes].shape[0]) {
    return "y must be f32 [tokens, outputs]";
  }
  if (is_present(o[kResidual]) &&
      (!is_float_rows(o[kResidual], call) || o[kResidual].shape[1] != o[kY].shape[1])) {
    return "residual must be f32 [tokens, outputs]";
  }
  if (!is_finite(call.attributes[kScale])) return "scale must be finite";
  if (!is_integer(call.attributes[kActivations], 0, 1)) return "activations must be 0 or 1";
  return nullptr;
}

// Lays the scratch out.
void place(const Call& call, Cursor* at, Product* p) {
  const Operand& codes = call.operands[kCodes];
  const Operand& scales = call.operands[kScales];
  int64_t sums = call.tokens * (is_present(scales) ? scales.shape[1] : 1);
  if (use_int8(call)) {
    p->a.codes = at->take<int8_t>(call.tokens * codes.shape[1]);
    p->a.fine_codes = at->take<int8_t>(call.tokens * codes.shape[1]);
    p->a.scales = at->take<float>(sums);
    p->a.code_sums = at->take<int32_t>(sums);
    p->a.fine_sums = at->take<int32_t>(sums);
    p->a.coarse = at->take<uint8_t>(sums);
  } else {
    p->a.sums = at->take<float>(sums);
  }
  p->totals = at->take<float>(call.parallel.threads * kTotals);
}

size_t scratch(const Call& call) {
  Product unused = {};
  Cursor at = {nullptr, 0};
  place(call, &at, &unused);
  return static_cast<size_t>(at.used);
}

// Adds inputs [first, last) of R rows and one panel to totals.
template <int R>
inline void tile(const Product& p, int64_t row, int64_t panel, int64_t first, int64_t last,
                 float* totals, int64_t stride) {
  const Weights& w = p.w;
  if (w.type == DType::f32) {
    tile_float<float, R, 1>(w, p.a, row, panel, first, last, totals, stride);
  } else if (w.type == DType::f16) {
    tile_float<Half, R, 1>(w, p.a, row, panel, first, last, totals, stride);
  } else if (w.type == DType::bf16) {
    tile_float<BFloat, R, 1>(w, p.a, row, panel, first, last, totals, stride);
  } else {
    first /= w.group;
    last /= w.group;
    if (!p.a.codes) {
      tile_codes<R, 1>(w, p.a, row, panel, first, last, totals, stride);
    } else if (w.type == DType::u4) {
      tile_u4<R>(w, p.a, row, panel, first, last, totals, stride);
    } else {
      tile_i8<R>(w, p.a, row, panel, first, last, totals, stride);
    }
  }
}

// One row and two panels: with fp32 activations one panel alone would wait for its own sums.
void tile_pair(const Product& p, int64_t panel, float* totals) {
  const Weights& w = p.w;
  if (w.type == DType::f32) {
    tile_float<float, 1, 2>(w, p.a, 0, panel, 0, w.inputs, totals, 0);
  } else if (w.type == DType::f16) {
    tile_float<Half, 1, 2>(w, p.a, 0, panel, 0, w.inputs, totals, 0);
  } else if (w.type == DType::bf16) {
    tile_float<BFloat, 1, 2>(w, p.a, 0, panel, 0, w.inputs, totals, 0);
  } else {
    tile_codes<1, 2>(w, p.a, 0, panel, 0, w.groups, totals, 0);
  }
}

void tile_rows(const Product& p, int64_t row, int64_t rows, int64_t panel, int64_t first,
               int64_t last, float* totals, int64_t stride) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    tile<kRows>(p, row + r, panel, first, last, totals + r * stride, stride);
  }
  if (kRows > 4 && r + 4 <= rows) {
    tile<4>(p, row + r, panel, first, last, totals + r * stride, stride);
    r += 4;
  }
  if (kRows > 2 && r + 2 <= rows) {
    tile<2>(p, row + r, panel, first, last, totals + r * stride, stride);
    r += 2;
  }
  if (r < rows) tile<1>(p, row + r, panel, first, last, totals + r * stride, stride);
}

void write_outputs(const Product& p, int64_t row_index, int64_t panel, const float* totals) {
  int64_t column = panel * kLanes;
  int64_t n = p.w.outputs - column;
  V value = mul(set(p.scale), load(totals));
  if (p.residual) {
    value = add(load_upto(row<float>(*p.residual, row_index) + column, n), value);
  }
  store_upto(row<float>(*p.y, row_index) + column, value, n);
}

void run_few_rows(void* user, int64_t index, int32_t) {
  const Product& p = *static_cast<const Product*>(user);
  int64_t panel = index * p.panels_per_unit;
  int64_t end = smaller(panel + p.panels_per_unit, p.panels);
  float totals[kFewRows * kLanes];
  bool pairs = p.rows == 1 && !p.a.codes;
  while (panel < end) {
    int width = pairs && panel + 2 <= end ? 2 : 1;
    memset(totals, 0, sizeof(totals));
    if (width == 2) {
      tile_pair(p, panel, totals);
    } else {
      tile_rows(p, 0, p.rows, panel, 0, p.w.inputs, totals, kLanes);
    }
    for (int64_t r = 0; r < p.rows; r++) {
      for (int i = 0; i < width; i++) {
        write_outputs(p, r, panel + i, totals + (r + i) * kLanes);
      }
    }
    panel += width;
  }
}

void run_block(void* user, int64_t index, int32_t thread) {
  const Product& p = *static_cast<const Product*>(user);
  int64_t row_blocks = quotient_up(p.rows, kRowBlock);
  int64_t row = index % row_blocks * kRowBlock;
  int64_t rows = smaller(kRowBlock, p.rows - row);
  int64_t panel = index / row_blocks * kPanelBlock;
  int64_t panels = smaller(kPanelBlock, p.panels - panel);
  float* totals = p.totals + thread * kTotals;
  constexpr int64_t stride = kPanelBlock * kLanes;
  memset(totals, 0, kTotals * sizeof(float));
  int64_t unit = is_float_type(p.w.type) ? kFloatBlock : p.w.group;
  int64_t block = larger(unit, kBytesBlock / (p.a.codes ? 1 : 4) / unit * unit);
  for (int64_t first = 0; first < p.w.inputs; first += block) {
    int64_t last = smaller(first + block, p.w.inputs);
    for (int64_t i = 0; i < panels; i++) {
      tile_rows(p, row, rows, panel + i, first, last, totals + i * kLanes, stride);
    }
  }
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t i = 0; i < panels; i++) {
      write_outputs(p, row + r, panel + i, totals + r * stride + i * kLanes);
    }
  }
}

void prepare(void* user, int64_t index, int32_t) {
  const Product& p = *static_cast<const Product*>(user);
  prepare_row(p.w, p.a, index);
}

void run(const Call& call) {
  const Operand* o = call.operands;
  Product p = {};
  p.w = read_weights(o[kCodes], o[kScales], o[kOffsets]);
  p.a.x = row<float>(o[kX], 0);
  p.a.stride = o[kX].stride;
  p.y = &o[kY];
  p.residual = is_present(o[kResidual]) ? &o[kResidual] : nullptr;
  p.scale = static_cast<float>(call.attributes[kScale]);
  p.rows = call.tokens;
  p.panels = quotient_up(p.w.outputs, kLanes);
  Cursor at = {call.scratch, 0};
  place(call, &at, &p);
  if (!is_float_type(p.w.type)) run_parallel(call, p.rows, prepare, &p);
  if (p.rows <= kFewRows) {
    int64_t fair = quotient_up(p.panels, int64_t{4} * call.parallel.threads);
    p.panels_per_unit = larger(1, smaller(fair, kUnitBytes / panel_bytes(p.w)));
    run_parallel(call, quotient_up(p.panels, p.panels_per_unit), run_few_rows, &p);
  } else {
    int64_t units = quotient_up(p.rows, kRowBlock) * quotient_up(p.panels, kPanelBlock);
    run_parallel(call, units, run_block, &p);
  }
}

ARK_KERNEL_END

ARK_REGISTER("matmul", operand_names, attribute_names, check, scratch, run)
