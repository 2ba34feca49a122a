// y = residual + scale * x · Wᵀ for packed float, 8-bit, 4-bit and 2-bit weights.
#include "many_rows.h"

ARK_KERNEL_BEGIN

enum { kX, kCodes, kScales, kOffsets, kResidual, kY, kNorm };
enum { kScale, kActivations, kEpsilon, kGated };
const char* const operand_names[] = {"x",         "codes", "?scales", "?offsets",
                                     "?residual", "y",     "?norm",   nullptr};
const char* const attribute_names[] = {"scale=1", "activations=0", "epsilon=0", "gated=0", nullptr};

bool use_int8(const Call& call) {
  return call.attributes[kActivations] == 0 && !is_float_type(call.operands[kCodes].dtype);
}

const char* check(const Call& call) {
  const Operand* o = call.operands;
  if (const char* wrong = check_weights(o[kCodes], o[kScales], o[kOffsets])) return wrong;
  if (!is_float_rows(o[kX], call) || o[kX].shape[1] != o[kCodes].shape[1]) {
    return "x must be f32 [tokens, inputs]";
  }
  if (is_present(o[kNorm]) && !is_float_vector(o[kNorm], o[kX].shape[1])) {
    return "norm must be f32 [inputs]";
  }
  double gated = call.attributes[kGated];
  if (!is_integer(gated, 0, 1)) return "gated must be 0 or 1";
  int64_t outputs = o[kCodes].shape[0];
  if (gated != 0) {
    if (outputs % (2 * kLanes) != 0) return "a gate and what it gates must be whole panels";
    if (is_present(o[kResidual])) return "a gated product has no residual";
    outputs /= 2;
  }
  if (!is_float_rows(o[kY], call) || o[kY].shape[1] != outputs) {
    return "y must be f32 [tokens, outputs]";
  }
  if (is_present(o[kResidual]) &&
      (!is_float_rows(o[kResidual], call) || o[kResidual].shape[1] != o[kY].shape[1])) {
    return "residual must be f32 [tokens, outputs]";
  }
  if (!is_finite(call.attributes[kScale])) return "scale must be finite";
  if (!is_integer(call.attributes[kActivations], 0, 1)) return "activations must be 0 or 1";
  double epsilon = call.attributes[kEpsilon];
  return is_finite(epsilon) && epsilon >= 0 ? nullptr : "epsilon must be finite and not negative";
}

// Lays the scratch out.
void place(const Call& call, Cursor* at, Product* p) {
  const Operand& codes = call.operands[kCodes];
  const Weights w = read_weights(codes, call.operands[kScales], call.operands[kOffsets]);
  int64_t sums = call.tokens * w.x_groups;
  if (is_present(call.operands[kNorm])) {
    // With int8 activations nobody reads a normalized row again.
    int64_t rows = use_int8(call) ? call.parallel.threads : call.tokens;
    p->normalized = at->take<float>(rows * w.inputs);
  }
  if (use_int8(call)) {
    // A line more per row: rows that are whole pages apart would share their places in the cache.
    int64_t padded = round_up(w.inputs, 64) + 64;
    bool tiled = is_tiled(w, call.tokens);
    p->a.code_stride = tiled ? w.inputs : padded;
    p->a.codes = at->take<int8_t>(call.tokens * padded);
    p->a.fine_codes = at->take<int8_t>(call.tokens * padded);
    p->a.scales = at->take<float>(sums);
    p->a.code_sums = at->take<int32_t>(sums);
    p->a.fine_sums = at->take<int32_t>(sums);
    p->a.coarse = at->take<uint8_t>(sums);
    if (w.kind == Offsets::minimum) p->a.sums = at->take<float>(sums);
    if (tiled) {
      place_row_tiles(w, call.tokens, at, &p->tiles);
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

void run(const Call& call) {
  const Operand* o = call.operands;
  Product p = {};
  p.w = read_weights(o[kCodes], o[kScales], o[kOffsets]);
  if (call.attributes[kGated] != 0) p.w.gated = p.w.outputs / kLanes / 2;
  p.x = &o[kX];
  p.norm = static_cast<const float*>(o[kNorm].data);
  p.epsilon = static_cast<float>(call.attributes[kEpsilon]);
  p.y = &o[kY];
  p.residual = is_present(o[kResidual]) ? &o[kResidual] : nullptr;
  p.scale = static_cast<float>(call.attributes[kScale]);
  p.rows = call.tokens;
  p.panels = quotient_up(p.w.outputs, kLanes);
  Cursor at = {call.scratch, 0};
  place(call, &at, &p);
  p.a.x = p.norm ? p.normalized : row<float>(o[kX], 0);
  p.a.stride = p.norm ? p.w.inputs : o[kX].stride;
  if (p.a.codes && is_tiled(p.w, p.rows)) {
    multiply_int8(call, &p);
  } else if (p.rows <= kFewRows) {
    multiply_few_rows(call, &p);
  } else {
    multiply_many_rows(call, &p);
  }
}

ARK_KERNEL_END

ARK_REGISTER("matmul", operand_names, attribute_names, check, scratch, run)
