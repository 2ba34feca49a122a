// y = gate / (1 + exp(-gate)) * up.
#include "kernel_check.h"

ARK_KERNEL_BEGIN

enum { kGate, kUp, kY };
const char* const operand_names[] = {"gate", "up", "y", nullptr};
const char* const attribute_names[] = {nullptr};

constexpr int64_t kPart = 4096;  // columns per item of parallel work

const char* check(const Call& call) {
  const Operand* o = call.operands;
  for (int i = kGate; i <= kY; i++) {
    if (!is_float_rows(o[i], call) || o[i].shape[1] != o[kGate].shape[1]) {
      return "gate, up and y must be f32 [tokens, columns] of one width";
    }
  }
  return nullptr;
}

void run_part(void* user, int64_t index, int32_t) {
  const Call& call = *static_cast<const Call*>(user);
  const Operand* o = call.operands;
  int64_t parts = quotient_up(o[kGate].shape[1], kPart);
  int64_t start = index % parts * kPart;
  int64_t end = smaller(start + kPart, o[kGate].shape[1]);
  const float* gate = row<float>(o[kGate], index / parts);
  const float* up = row<float>(o[kUp], index / parts);
  float* y = row<float>(o[kY], index / parts);
  for (int64_t i = start; i < end; i += kLanes) {
    V g = load_upto(gate + i, end - i);
    V sigmoid_inverse = add(set(1.0f), exp(sub(zero(), g)));
    store_upto(y + i, mul(div(g, sigmoid_inverse), load_upto(up + i, end - i)), end - i);
  }
}

void run(const Call& call) {
  int64_t parts = quotient_up(call.operands[kGate].shape[1], kPart);
  run_parallel(call, call.tokens * parts, run_part, const_cast<Call*>(&call));
}

ARK_KERNEL_END

ARK_REGISTER("swiglu", operand_names, attribute_names, check, nullptr, run)
