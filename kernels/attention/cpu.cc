// Dense causal attention with grouped query heads.
#include "attend.h"

ARK_KERNEL_BEGIN

enum { kQ, kKey, kValue, kY };
enum { kHeads, kScale };
const char* const operand_names[] = {"q", "key", "value", "y", nullptr};
const char* const attribute_names[] = {"heads", "scale", nullptr};

const char* check(const Call& call) {
  const Operand* o = call.operands;
  return check_attention(call, o[kQ], o[kKey], o[kValue], o[kY], call.attributes[kHeads],
                         call.attributes[kScale]);
}

Attention describe(const Call& call) {
  Attention a = {};
  a.call = &call;
  a.q = &call.operands[kQ];
  a.key = &call.operands[kKey];
  a.value = &call.operands[kValue];
  a.y = &call.operands[kY];
  a.heads = static_cast<int64_t>(call.attributes[kHeads]);
  a.scale = static_cast<float>(call.attributes[kScale]);
  return a;
}

size_t scratch(const Call& call) {
  Attention a = describe(call);
  Cursor at = {nullptr, 0};
  place_attention(&a, &at);
  return static_cast<size_t>(at.used);
}

void run(const Call& call) {
  Attention a = describe(call);
  run_attention(&a);
}

ARK_KERNEL_END

ARK_REGISTER("attention", operand_names, attribute_names, check, scratch, run)
