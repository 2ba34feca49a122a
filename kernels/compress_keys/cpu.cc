// Means of the key windows that the new tokens complete, from the cache and therefore the same
// however the tokens were appended.
#include "kernel_check.h"

ARK_KERNEL_BEGIN

enum { kKey, kCompressed };
enum { kWindow, kStride };
const char* const operand_names[] = {"key", "compressed", nullptr};
const char* const attribute_names[] = {"window", "stride", nullptr};

const char* check(const Call& call) {
  const Operand* o = call.operands;
  if (!is_key_cache(o[kKey]) || !is_half_or_float(o[kKey].dtype) || o[kKey].shape[1] < 1) {
    return "key must be fp16 or fp32 [kv_heads, blocks, head_dim, 64]";
  }
  if (!is_key_cache(o[kCompressed]) || o[kCompressed].dtype != o[kKey].dtype ||
      o[kCompressed].shape[0] != o[kKey].shape[0] || o[kCompressed].shape[2] != o[kKey].shape[2]) {
    return "compressed must be like key, [kv_heads, blocks, head_dim, 64]";
  }
  if (!is_integer(call.attributes[kWindow], 1, 1 << 20) ||
      !is_integer(call.attributes[kStride], 1, 1 << 20)) {
    return "window and stride must be positive integers";
  }
  return nullptr;
}

int64_t window_count(int64_t length, int64_t window, int64_t stride) {
  return length < window ? 0 : (length - window) / stride + 1;
}

// The sum of one dimension of a window, in steps that end where a block of 64 tokens does.
template <typename T>
float sum_window(const T* dimension, int64_t block_stride, int64_t start, int64_t end) {
  V total = zero();
  while (start < end) {
    int64_t n = smaller(smaller(kLanes, end - start), 64 - start % 64);
    total = add(total, load_upto(dimension + start / 64 * block_stride + start % 64, n));
    start += n;
  }
  return sum(total);
}

template <typename T>
void compress(const Call& call, int64_t head, int64_t index) {
  const Operand* o = call.operands;
  int64_t head_dim = o[kKey].shape[2];
  int64_t window = static_cast<int64_t>(call.attributes[kWindow]);
  int64_t start = index * static_cast<int64_t>(call.attributes[kStride]);
  const T* keys = static_cast<const T*>(o[kKey].data) + head * o[kKey].shape[1] * head_dim * 64;
  T* means = static_cast<T*>(o[kCompressed].data) +
             (head * o[kCompressed].shape[1] + index / 64) * head_dim * 64 + index % 64;
  float count = static_cast<float>(window);
  for (int64_t j = 0; j < head_dim; j++) {
    float mean = sum_window(keys + j * 64, head_dim * 64, start, start + window) / count;
    store_part(means + j * 64, set(mean), 1);
  }
}

void compress_head(void* user, int64_t head, int32_t) {
  const Call& call = *static_cast<const Call*>(user);
  const Operand* o = call.operands;
  int64_t window = static_cast<int64_t>(call.attributes[kWindow]);
  int64_t stride = static_cast<int64_t>(call.attributes[kStride]);
  int64_t length = smaller(call.past + call.tokens, o[kKey].shape[1] * 64);
  int64_t end = smaller(window_count(length, window, stride), o[kCompressed].shape[1] * 64);
  for (int64_t j = window_count(call.past, window, stride); j < end; j++) {
    if (o[kKey].dtype == DType::f16) {
      compress<Half>(call, head, j);
    } else {
      compress<float>(call, head, j);
    }
  }
}

void run(const Call& call) {
  int64_t window = static_cast<int64_t>(call.attributes[kWindow]);
  int64_t stride = static_cast<int64_t>(call.attributes[kStride]);
  int64_t after = window_count(call.past + call.tokens, window, stride);
  if (after == window_count(call.past, window, stride)) return;
  run_parallel(call, call.operands[kKey].shape[0], compress_head, const_cast<Call*>(&call));
}

ARK_KERNEL_END

ARK_REGISTER("compress_keys", operand_names, attribute_names, check, nullptr, run)
