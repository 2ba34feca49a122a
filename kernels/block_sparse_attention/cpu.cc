// InfLLM v2 attention over the blocks that select_blocks chose.
#include "../attention/attend.h"

ARK_KERNEL_BEGIN

enum { kQ, kKey, kValue, kBlocks, kY };
enum { kHeads, kScale, kBlockSize };
const char* const operand_names[] = {"q", "key", "value", "blocks", "y", nullptr};
const char* const attribute_names[] = {"heads", "scale", "block_size", nullptr};

const char* check(const Call& call) {
  const Operand* o = call.operands;
  if (const char* wrong = check_attention(call, o[kQ], o[kKey], o[kValue], o[kY],
                                          call.attributes[kHeads], call.attributes[kScale])) {
    return wrong;
  }
  if (!is_rows(o[kBlocks], call, DType::i32) || o[kBlocks].shape[1] % o[kKey].shape[0] != 0) {
    return "blocks must be i32 [tokens, kv_heads * (1 + most)]";
  }
  if (!is_block_size(call.attributes[kBlockSize])) return "block_size must divide 64";
  return nullptr;
}

Attention describe(const Call& call) {
  Attention a = {};
  a.call = &call;
  a.q = &call.operands[kQ];
  a.key = &call.operands[kKey];
  a.value = &call.operands[kValue];
  a.chosen = &call.operands[kBlocks];
  a.y = &call.operands[kY];
  a.heads = static_cast<int64_t>(call.attributes[kHeads]);
  a.scale = static_cast<float>(call.attributes[kScale]);
  a.block_size = static_cast<int64_t>(call.attributes[kBlockSize]);
  a.most = a.chosen->shape[1] / a.key->shape[0] - 1;
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

ARK_REGISTER("block_sparse_attention", operand_names, attribute_names, check, scratch, run)
