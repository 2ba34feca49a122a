// Writes new keys (transposed within blocks of 64 tokens) and values into the KV cache.
#include "kernel_check.h"

ARK_KERNEL_BEGIN

enum { kK, kV, kKey, kValue };
const char* const operand_names[] = {"k", "v", "key", "value", nullptr};
const char* const attribute_names[] = {nullptr};

const char* check(const Call& call) {
  const Operand* o = call.operands;
  if (!is_key_cache(o[kKey]) || !is_half_or_float(o[kKey].dtype) || o[kKey].shape[1] < 1) {
    return "key must be fp16 or fp32 [kv_heads, blocks, head_dim, 64]";
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

// One token of one head: keys are 64 apart, values adjacent.
template <typename T>
void append(const Call& call, int64_t token, int64_t head) {
  const Operand* o = call.operands;
  int64_t head_dim = o[kKey].shape[2];
  int64_t position = call.past + token;
  const float* k = row<float>(o[kK], token) + head * head_dim;
  const float* v = row<float>(o[kV], token) + head * head_dim;
  T* key = static_cast<T*>(o[kKey].data) +
           (head * o[kKey].shape[1] + position / 64) * head_dim * 64 + position % 64;
  T* value = static_cast<T*>(o[kValue].data) + (head * o[kValue].shape[1] + position) * head_dim;
  for (int64_t j = 0; j < head_dim; j += kLanes) {
    int64_t n = smaller(kLanes, head_dim - j);
    T lanes[kLanes];
    store(lanes, load_upto(k + j, n));
    for (int64_t i = 0; i < n; i++) key[(j + i) * 64] = lanes[i];
    store_upto(value + j, load_upto(v + j, n), n);
  }
}

void append_head(void* user, int64_t head, int32_t) {
  const Call& call = *static_cast<const Call*>(user);
  // Positions are the runtime's to keep below the capacity; beyond it nothing is written.
  int64_t end = smaller(call.tokens, call.operands[kValue].shape[1] - call.past);
  for (int64_t t = 0; t < end; t++) {
    if (call.operands[kKey].dtype == DType::f16) {
      append<Half>(call, t, head);
    } else {
      append<float>(call, t, head);
    }
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
