// y[t] = scale * W[ids[t]], read from packed panels.
#include "../matmul/panels.h"

ARK_KERNEL_BEGIN

enum { kIds, kCodes, kScales, kOffsets, kY };
const char* const operand_names[] = {"ids", "codes", "?scales", "?offsets", "y", nullptr};
const char* const attribute_names[] = {"scale=1", nullptr};

const char* check(const Call& call) {
  const Operand* o = call.operands;
  if (const char* wrong = check_weights(o[kCodes], o[kScales], o[kOffsets])) return wrong;
  if (!is_rows(o[kIds], call, DType::i32) || o[kIds].shape[1] != 1) {
    return "ids must be i32 [tokens, 1]";
  }
  if (!is_float_rows(o[kY], call) || o[kY].shape[1] != o[kCodes].shape[1]) {
    return "y must be f32 [tokens, hidden]";
  }
  return is_finite(call.attributes[0]) ? nullptr : "scale must be finite";
}

template <typename T>
void copy_floats(const Weights& w, int64_t id, float scale, float* y) {
  const T* p = reinterpret_cast<const T*>(panel(w, id / kLanes)) + id % kLanes;
  for (int64_t k = 0; k < w.inputs; k += kLanes) {
    int64_t n = smaller(kLanes, w.inputs - k);
    T values[kLanes] = {};
    for (int64_t i = 0; i < n; i++) values[i] = p[(k + i) * kLanes];
    store_upto(y + k, mul(set(scale), load(values)), n);
  }
}

void copy_codes(const Weights& w, int64_t id, float scale, float* y) {
  float scales[kLanes], minimums[kLanes];
  for (int64_t g = 0; g < w.groups; g++) {
    int64_t slot = id / kLanes * w.groups + g;
    store(scales, load_scales(w, slot));
    store(minimums, w.kind == Offsets::minimum ? load_minimums(w, slot) : zero());
    float step = scales[id % kLanes];
    float minimum = minimums[id % kLanes];
    int32_t zero_code = w.kind == Offsets::minimum ? minimum_shift(w) : symmetric_zero(w);
    if (w.kind == Offsets::zero_point) {
      V zeros = to_float(load_zero_points(w, slot));
      float lanes[kLanes];
      store(lanes, zeros);
      zero_code = static_cast<int32_t>(lanes[id % kLanes]);
    }
    for (int64_t k = g * w.group; k < (g + 1) * w.group; k++) {
      y[k] = scale * (step * static_cast<float>(code_at(w, id, k) - zero_code) + minimum);
    }
  }
}

void embed_row(void* user, int64_t token, int32_t) {
  const Call& call = *static_cast<const Call*>(user);
  const Operand* o = call.operands;
  Weights w = read_weights(o[kCodes], o[kScales], o[kOffsets]);
  float scale = static_cast<float>(call.attributes[0]);
  int64_t id = *row<int32_t>(o[kIds], token);
  float* y = row<float>(o[kY], token);
  if (id < 0 || id >= w.outputs) {
    // The runtime refuses such tokens; a plan that reads ids from elsewhere gets zeros.
    memset(y, 0, static_cast<size_t>(w.inputs) * sizeof(float));
  } else if (w.type == DType::f32) {
    copy_floats<float>(w, id, scale, y);
  } else if (w.type == DType::f16) {
    copy_floats<Half>(w, id, scale, y);
  } else if (w.type == DType::bf16) {
    copy_floats<BFloat>(w, id, scale, y);
  } else {
    copy_codes(w, id, scale, y);
  }
}

void run(const Call& call) { run_parallel(call, call.tokens, embed_row, const_cast<Call*>(&call)); }

ARK_KERNEL_END

ARK_REGISTER("embed", operand_names, attribute_names, check, nullptr, run)
