// y = x / sqrt(mean(x²) + epsilon) * weight.
#include <math.h>

#include "kernel_check.h"

ARK_KERNEL_BEGIN

enum { kX, kWeight, kY };
const char* const operand_names[] = {"x", "weight", "y", nullptr};
const char* const attribute_names[] = {"epsilon", nullptr};

const char* check(const Call& call) {
  const Operand* o = call.operands;
  if (!is_float_rows(o[kX], call)) return "x must be f32 [tokens, hidden]";
  if (!is_float_vector(o[kWeight], o[kX].shape[1])) return "weight must be f32 [hidden]";
  if (!is_float_rows(o[kY], call) || o[kY].shape[1] != o[kX].shape[1]) {
    return "y must be f32 [tokens, hidden]";
  }
  double epsilon = call.attributes[0];
  return is_finite(epsilon) && epsilon >= 0 ? nullptr : "epsilon must be finite and not negative";
}

void normalize_row(void* user, int64_t token, int32_t) {
  const Call& call = *static_cast<const Call*>(user);
  const Operand* o = call.operands;
  const float* x = row<float>(o[kX], token);
  const float* weight = static_cast<const float*>(o[kWeight].data);
  float* y = row<float>(o[kY], token);
  int64_t n = o[kX].shape[1];
  V squares = zero();
  for (int64_t i = 0; i < n; i += kLanes) {
    V v = load_upto(x + i, n - i);
    squares = fma(v, v, squares);
  }
  float mean = sum(squares) / static_cast<float>(n);
  V factor = set(1.0f / sqrtf(mean + static_cast<float>(call.attributes[0])));
  for (int64_t i = 0; i < n; i += kLanes) {
    V v = mul(load_upto(x + i, n - i), factor);
    store_upto(y + i, mul(v, load_upto(weight + i, n - i)), n - i);
  }
}

void run(const Call& call) {
  run_parallel(call, call.tokens, normalize_row, const_cast<Call*>(&call));
}

ARK_KERNEL_END

ARK_REGISTER("rms_norm", operand_names, attribute_names, check, nullptr, run)
