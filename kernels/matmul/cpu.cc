// y = residual + scale * x · Wᵀ for packed float, 8-bit, 4-bit and 2-bit weights.
#include "many_rows.h"

ARK_KERNEL_BEGIN

enum { kX, kCodes, kScales, kOffsets, kResidual, kY };
enum { kScale, kActivations };
const char* const operand_names[] = {"x",         "codes", "?scales", "?offsets",
                                     "?residual", "y",     nullptr};
const char* const attribute_names[] = {"scale=1", "activations=0", nullptr};

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
  const Weights w = read_weights(codes, call.operands[kScales], call.operands[kOffsets]);
  int64_t sums = call.tokens * w.x_groups;
  if (use_int8(call)) {
    // A line more per row: rows that are whole pages apart would share their places in the cache.
    int64_t padded = round_up(w.inputs, 64) + 64;
    p->a.code_stride = call.tokens <= kFewRows ? padded : w.inputs;
    p->a.codes = at->take<int8_t>(call.tokens * padded);
    p->a.fine_codes = at->take<int8_t>(call.tokens * padded);
    p->a.scales = at->take<float>(sums);
    p->a.code_sums = at->take<int32_t>(sums);
    p->a.fine_sums = at->take<int32_t>(sums);
    p->a.coarse = at->take<uint8_t>(sums);
    if (call.tokens > kFewRows) {
      place_row_tiles(call.tokens, w.inputs, w.x_groups, at, &p->tiles);
      p->buffer_bytes = buffer_bytes(w);
      p->buffers = at->take<char>(call.parallel.threads * p->buffer_bytes);
    }
  } else {
    p->a.sums = at->take<float>(sums);
    p->totals = at->take<float>(call.parallel.threads * kTotals);
  }
}

size_t scratch(const Call& call) {
  Product unused = {};
  Cursor at = {nullptr, 0};
  place(call, &at, &unused);
  return static_cast<size_t>(at.used);
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
    multiply_few_rows(call, &p);
  } else {
    multiply_many_rows(call, &p);
  }
}

ARK_KERNEL_END

ARK_REGISTER("matmul", operand_names, attribute_names, check, scratch, run)
