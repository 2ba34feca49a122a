// y = x / sqrt(mean(x²) + epsilon) * weight.
#include "kernel_check.h"
#include "normalize.h"

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
  float epsilon = static_cast<float>(call.attributes[0]);
  normalize(x, weight, o[kX].shape[1], epsilon, row<float>(o[kY], token));
}

void run(const Call& call) {
  run_parallel(call, call.tokens, normalize_row, const_cast<Call*>(&call));
}

ARK_KERNEL_END

ARK_REGISTER("rms_norm", operand_names, attribute_names, check, nullptr, run)
