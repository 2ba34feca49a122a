// Writes new keys (transposed within blocks of 64 tokens) and values into the KV cache, rounded or
// quantized to its type.
#include "kernel_check.h"
#include "kv_quantize.h"

ARK_KERNEL_BEGIN

enum { kK, kV, kKey, kValue };
const char* const operand_names[] = {"k", "v", "key", "value", nullptr};
const char* const attribute_names[] = {nullptr};

const char* check(const Call& call) {
  const Operand* o = call.operands;
  if (!is_key_cache(o[kKey]) || o[kKey].shape[1] < 1) {
    return "key must be f32, f16, i8 or u4 [kv_heads, blocks, head_dim, 64]";
  }
  if (!is_value_cache(o[kValue], o[kKey])) {
    return "value must be like key, [kv_heads, blocks * 64, head_dim]";
  }
  int64_t columns = o[kKey].shape[0] * o[kKey].shape[2];
  if (!is_float_rows(o[kK], call) || o[kK].shape[1] != columns) {
    return "k must be f32 [tokens, kv_heads * head_dim]";
  }
  if (!is_float_rows(o[kV], call) || o[kV].shape[1] != columns) {
    return "v must be f32 [tokens, kv_heads * head_dim]";
  }
  return nullptr;
}

void append_head(void* user, int64_t head, int32_t) {
  const Call& call = *static_cast<const Call*>(user);
  const Operand* o = call.operands;
  DType type = o[kKey].dtype;
  int64_t blocks = o[kKey].shape[1];
  int64_t head_dim = o[kKey].shape[2];
  int64_t key_bytes = kv_key_block_bytes(type, head_dim);
  int64_t value_bytes = kv_value_block_bytes(type, head_dim);
  char* keys = static_cast<char*>(o[kKey].data) + head * blocks * key_bytes;
  char* values = static_cast<char*>(o[kValue].data) + head * blocks * value_bytes;
  // Positions are the runtime's to keep below the capacity; beyond it nothing is written.
  int64_t end = smaller(call.tokens, blocks * kKvBlock - call.past);
  for (int64_t t = 0; t < end; t++) {
    int64_t block = (call.past + t) / kKvBlock;
    int64_t slot = (call.past + t) % kKvBlock;
    const float* k = row<float>(o[kK], t) + head * head_dim;
    const float* v = row<float>(o[kV], t) + head * head_dim;
    write_key(type, keys + block * key_bytes, slot, k, head_dim);
    write_value(type, values + block * value_bytes, slot, v, head_dim);
  }
}

void run(const Call& call) {
  if (call.tokens == 1) {  // less work than waking a thread
    Call one = call;
    for (int64_t head = 0; head < call.operands[kKey].shape[0]; head++) append_head(&one, head, 0);
    return;
  }
  run_parallel(call, call.operands[kKey].shape[0], append_head, const_cast<Call*>(&call));
}

ARK_KERNEL_END

ARK_REGISTER("cache_append", operand_names, attribute_names, check, nullptr, run)
