// Cosines and sines of the rotary angles of each position, plain or LongRoPE.
#include <math.h>

#include "kernel_check.h"

ARK_KERNEL_BEGIN

enum { kShort, kLong, kY };
enum { kOriginalMax, kAttentionFactor };
const char* const operand_names[] = {"short", "long", "y", nullptr};
const char* const attribute_names[] = {"original_max=0", "attention_factor=1", nullptr};

const char* check(const Call& call) {
  const Operand* o = call.operands;
  if (!is_float_rows(o[kY], call) || o[kY].shape[1] % 2 != 0) {
    return "y must be f32 [tokens, head_dim], head_dim even";
  }
  int64_t half = o[kY].shape[1] / 2;
  if (!is_float_vector(o[kShort], half) || !is_float_vector(o[kLong], half)) {
    return "short and long must be f32 [head_dim / 2]";
  }
  if (!is_integer(call.attributes[kOriginalMax], 0, kMostElements)) {
    return "original_max must be a length";
  }
  return is_finite(call.attributes[kAttentionFactor]) ? nullptr : "attention_factor must be finite";
}

void fill_row(void* user, int64_t token, int32_t) {
  const Call& call = *static_cast<const Call*>(user);
  const Operand* o = call.operands;
  double original_max = call.attributes[kOriginalMax];
  bool beyond = original_max > 0 && static_cast<double>(call.total) > original_max;
  const float* inverse = static_cast<const float*>(o[beyond ? kLong : kShort].data);
  float factor = static_cast<float>(call.attributes[kAttentionFactor]);
  float position = static_cast<float>(position_of(call, token));
  int64_t half = o[kY].shape[1] / 2;
  float* y = row<float>(o[kY], token);
  for (int64_t j = 0; j < half; j++) {
    float angle = position * inverse[j];
    y[j] = cosf(angle) * factor;
    y[half + j] = sinf(angle) * factor;
  }
}

void run(const Call& call) { run_parallel(call, call.tokens, fill_row, const_cast<Call*>(&call)); }

ARK_KERNEL_END

ARK_REGISTER("rope_table", operand_names, attribute_names, check, nullptr, run)
