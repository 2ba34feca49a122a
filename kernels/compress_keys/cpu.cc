// Means of the key windows that the new tokens complete, from the cache as it is stored and
// therefore the same however the tokens were appended.
#include "kernel_check.h"
#include "kv_quantize.h"

ARK_KERNEL_BEGIN

enum { kKey, kCompressed };
enum { kWindow, kStride };
const char* const operand_names[] = {"key", "compressed", nullptr};
const char* const attribute_names[] = {"window", "stride", nullptr};

const char* check(const Call& call) {
  const Operand* o = call.operands;
  if (!is_key_cache(o[kKey]) || o[kKey].shape[1] < 1) {
    return "key must be f32, f16, i8 or u4 [kv_heads, blocks, head_dim, 64]";
  }
  if (!is_key_cache(o[kCompressed]) || o[kCompressed].dtype == DType::u4 ||
      o[kCompressed].shape[0] != o[kKey].shape[0] || o[kCompressed].shape[2] != o[kKey].shape[2]) {
    return "compressed must be f32, f16 or i8, shaped like key, [kv_heads, blocks, head_dim, 64]";
  }
  if (!is_integer(call.attributes[kWindow], 1, 1 << 20) ||
      !is_integer(call.attributes[kStride], 1, 1 << 20)) {
    return "window and stride must be positive integers";
  }
  return nullptr;
}

struct Workspace {
  float* block;  // [head_dim][64]
  float* mean;   // [head_dim]
};

Workspace open_workspace(const Call& call, Cursor* at) {
  int64_t head_dim = call.operands[kKey].shape[2];
  Workspace w;
  w.block = at->take<float>(head_dim * kKvBlock);
  w.mean = at->take<float>(head_dim);
  return w;
}

size_t scratch(const Call& call) {
  Cursor at = {nullptr, 0};
  open_workspace(call, &at);
  return static_cast<size_t>(at.used * call.parallel.threads);
}

int64_t window_count(int64_t length, int64_t window, int64_t stride) {
  return length < window ? 0 : (length - window) / stride + 1;
}

float sum_tokens(const float* x, int64_t start, int64_t end) {
  V total = zero();
  for (int64_t t = start; t < end; t += kLanes) total = add(total, load_upto(x + t, end - t));
  return sum(total);
}

// The windows [from, end) of one head.
void compress_head(const Call& call, const Workspace& w, int64_t head, int64_t from, int64_t end) {
  const Operand* o = call.operands;
  int64_t head_dim = o[kKey].shape[2];
  int64_t window = static_cast<int64_t>(call.attributes[kWindow]);
  int64_t stride = static_cast<int64_t>(call.attributes[kStride]);
  int64_t key_bytes = kv_key_block_bytes(o[kKey].dtype, head_dim);
  int64_t out_bytes = kv_key_block_bytes(o[kCompressed].dtype, head_dim);
  const char* keys = static_cast<const char*>(o[kKey].data) + head * o[kKey].shape[1] * key_bytes;
  char* out = static_cast<char*>(o[kCompressed].data) + head * o[kCompressed].shape[1] * out_bytes;
  float count = static_cast<float>(window);
  const float* floats = nullptr;
  int64_t read = -1;  // the block in floats
  for (int64_t index = from; index < end; index++) {
    int64_t start = index * stride;
    memset(w.mean, 0, static_cast<size_t>(head_dim) * sizeof(float));
    for (int64_t at = start; at < start + window;) {
      int64_t block = at / kKvBlock;
      if (block != read) {
        floats = read_keys(o[kKey].dtype, keys + block * key_bytes, head_dim, w.block);
        read = block;
      }
      int64_t next = smaller(start + window, (block + 1) * kKvBlock);
      for (int64_t j = 0; j < head_dim; j++) {
        const float* dimension = floats + j * kKvBlock;
        w.mean[j] += sum_tokens(dimension, at - block * kKvBlock, next - block * kKvBlock);
      }
      at = next;
    }
    for (int64_t j = 0; j < head_dim; j++) w.mean[j] /= count;
    char* to = out + index / kKvBlock * out_bytes;
    write_key(o[kCompressed].dtype, to, index % kKvBlock, w.mean, head_dim);
  }
}

void compress_one(void* user, int64_t head, int32_t thread) {
  const Call& call = *static_cast<const Call*>(user);
  const Operand* o = call.operands;
  int64_t window = static_cast<int64_t>(call.attributes[kWindow]);
  int64_t stride = static_cast<int64_t>(call.attributes[kStride]);
  Cursor size = {nullptr, 0};
  open_workspace(call, &size);
  Cursor at = {call.scratch + thread * size.used, 0};
  int64_t length = smaller(call.past + call.tokens, o[kKey].shape[1] * kKvBlock);
  int64_t end = smaller(window_count(length, window, stride), o[kCompressed].shape[1] * kKvBlock);
  compress_head(call, open_workspace(call, &at), head, window_count(call.past, window, stride),
                end);
}

void run(const Call& call) {
  // Drafted tokens are not yet part of the sequence: the caller compresses those it accepts.
  if (call.ancestors) return;
  int64_t window = static_cast<int64_t>(call.attributes[kWindow]);
  int64_t stride = static_cast<int64_t>(call.attributes[kStride]);
  int64_t added = window_count(call.past + call.tokens, window, stride) -
                  window_count(call.past, window, stride);
  if (added == 0) return;
  int64_t heads = call.operands[kKey].shape[0];
  if (added == 1) {  // less work than waking a thread
    for (int64_t head = 0; head < heads; head++) compress_one(const_cast<Call*>(&call), head, 0);
    return;
  }
  run_parallel(call, heads, compress_one, const_cast<Call*>(&call));
}

ARK_KERNEL_END

ARK_REGISTER("compress_keys", operand_names, attribute_names, check, scratch, run)
