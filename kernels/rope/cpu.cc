// Rotary position embedding in place, half-split: dimension j turns with j + head_dim / 2.
#include "kernel_check.h"

ARK_KERNEL_BEGIN

enum { kX, kTable };
const char* const operand_names[] = {"x", "table", nullptr};
const char* const attribute_names[] = {"head_dim", nullptr};

const char* check(const Call& call) {
  const Operand* o = call.operands;
  if (!is_integer(call.attributes[0], 2, kMostElements)) return "head_dim must be 2 or more";
  int64_t head_dim = static_cast<int64_t>(call.attributes[0]);
  if (!is_float_rows(o[kX], call) || o[kX].shape[1] % head_dim != 0 || head_dim % 2 != 0) {
    return "x must be f32 [tokens, heads * head_dim], head_dim even";
  }
  if (!is_float_rows(o[kTable], call) || o[kTable].shape[1] != head_dim) {
    return "table must be f32 [tokens, head_dim]";
  }
  return nullptr;
}

void rotate_row(void* user, int64_t token, int32_t) {
  const Call& call = *static_cast<const Call*>(user);
  const Operand* o = call.operands;
  int64_t half = o[kTable].shape[1] / 2;
  const float* cosines = row<float>(o[kTable], token);
  const float* sines = cosines + half;
  float* x = row<float>(o[kX], token);
  for (int64_t head = 0; head < o[kX].shape[1]; head += 2 * half) {
    float* first = x + head;
    float* second = first + half;
    for (int64_t j = 0; j < half; j += kLanes) {
      int64_t n = half - j;
      V a = load_upto(first + j, n);
      V b = load_upto(second + j, n);
      V cosine = load_upto(cosines + j, n);
      V sine = load_upto(sines + j, n);
      store_upto(first + j, sub(mul(a, cosine), mul(b, sine)), n);
      store_upto(second + j, fma(b, cosine, mul(a, sine)), n);
    }
  }
}

void run(const Call& call) {
  run_parallel(call, call.tokens, rotate_row, const_cast<Call*>(&call));
}

ARK_KERNEL_END

ARK_REGISTER("rope", operand_names, attribute_names, check, nullptr, run)
