// InfLLM v2 block selection. A window's score is the sum over the group's heads of
// exp(score - lse), kept as its logarithm: no key is large enough to overflow it.
#include "../attention/score_block.h"
#include "top_blocks.h"

ARK_KERNEL_BEGIN

enum { kQ, kFine, kCoarse, kY };
enum {
  kHeads,
  kScale,
  kBlockSize,
  kKernelSize,
  kKernelStride,
  kInitBlocks,
  kLocalBlocks,
  kTopk,
  kDenseLen,
  kGeneration,
  kExactLse
};
const char* const operand_names[] = {"q", "fine", "coarse", "y", nullptr};
const char* const attribute_names[] = {
    "heads",        "scale", "block_size", "kernel_size", "kernel_stride", "init_blocks",
    "local_blocks", "topk",  "dense_len",  "generation",  "exact_lse",     nullptr};
constexpr int64_t kCoarser = 4;  // coarse windows are that many times as long and as far apart

struct Selection {
  const Call* call;
  Choice choice;
  int64_t heads;  // per kv head
  int64_t head_dim;
  float scale;
  int64_t block_size;
  int64_t window;
  int64_t stride;
  int64_t dense_len;
  bool exact;
  int64_t most;
  int64_t window_capacity;
  int64_t block_capacity;
  char* workspaces;
  int64_t workspace_bytes;
};

struct Workspace {
  Queries queries;
  float* lse;      // [heads]
  float* totals;   // [heads]
  float* windows;  // scores of all visible windows
  uint32_t* keys;  // of all causal blocks
};

int64_t integer(const Call& call, int index) {
  return static_cast<int64_t>(call.attributes[index]);
}

const char* check(const Call& call) {
  const Operand* o = call.operands;
  const double* a = call.attributes;
  if (!is_key_cache(o[kFine]) || o[kFine].dtype == DType::u4 || !is_key_cache(o[kCoarse]) ||
      o[kCoarse].dtype != o[kFine].dtype || o[kCoarse].shape[0] != o[kFine].shape[0] ||
      o[kCoarse].shape[2] != o[kFine].shape[2]) {
    return "fine and coarse must be f32, f16 or i8 [kv_heads, blocks, head_dim, 64]";
  }
  int64_t kv_heads = o[kFine].shape[0];
  if (!is_integer(a[kHeads], 1, 65536) || integer(call, kHeads) % kv_heads != 0) {
    return "heads must be a multiple of the cache's kv_heads";
  }
  if (!is_float_rows(o[kQ], call) || o[kQ].shape[1] != integer(call, kHeads) * o[kFine].shape[2]) {
    return "q must be f32 [tokens, heads * head_dim]";
  }
  if (!is_finite(a[kScale])) return "scale must be finite";
  if (!is_block_size(a[kBlockSize])) return "block_size must divide 64";
  if (!is_integer(a[kKernelSize], 1, 1 << 16) || !is_integer(a[kKernelStride], 1, 64) ||
      integer(call, kBlockSize) % integer(call, kKernelStride) != 0) {
    return "kernel_size must be positive and kernel_stride divide block_size";
  }
  if (!is_integer(a[kInitBlocks], 0, 1 << 20) || !is_integer(a[kLocalBlocks], 0, 1 << 20) ||
      !is_integer(a[kTopk], 0, 1 << 20) || !is_integer(a[kDenseLen], -1, kMostElements)) {
    return "init_blocks, local_blocks, topk or dense_len out of range";
  }
  if (!is_integer(a[kGeneration], 0, 1) || !is_integer(a[kExactLse], 0, 1)) {
    return "generation and exact_lse must be 0 or 1";
  }
  if (integer(call, kLocalBlocks) < 1) return "local_blocks must hold the query's own block";
  int64_t most = integer(call, kTopk) + integer(call, kLocalBlocks);
  if (!is_rows(o[kY], call, DType::i32) || o[kY].shape[1] != kv_heads * (1 + most)) {
    return "y must be i32 [tokens, kv_heads * (1 + topk + local_blocks)]";
  }
  return nullptr;
}

Workspace open_workspace(const Selection& s, Cursor* at) {
  Workspace w;
  w.queries = take_queries(at, s.call->operands[kFine].dtype, s.heads, s.head_dim);
  w.lse = at->take<float>(s.heads);
  w.totals = at->take<float>(s.heads);
  w.windows = at->take<float>(s.window_capacity);
  w.keys = at->take<uint32_t>(s.block_capacity);
  return w;
}

Selection describe(const Call& call, Cursor* at) {
  const Operand* o = call.operands;
  Selection s = {};
  s.call = &call;
  s.choice = {integer(call, kBlockSize) / integer(call, kKernelStride), integer(call, kInitBlocks),
              integer(call, kLocalBlocks), integer(call, kTopk), integer(call, kGeneration) == 1};
  s.heads = integer(call, kHeads) / o[kFine].shape[0];
  s.head_dim = o[kFine].shape[2];
  s.scale = static_cast<float>(call.attributes[kScale]);
  s.block_size = integer(call, kBlockSize);
  s.window = integer(call, kKernelSize);
  s.stride = integer(call, kKernelStride);
  s.dense_len = integer(call, kDenseLen);
  s.exact = integer(call, kExactLse) == 1;
  s.most = s.choice.topk + s.choice.local_blocks;
  s.window_capacity = o[kFine].shape[1] * kBlock;
  // As many tokens as the fine windows can stand for have no more blocks than this.
  s.block_capacity = (s.window_capacity * s.stride + s.window) / s.block_size + 2;
  Cursor one = {nullptr, 0};
  open_workspace(s, &one);
  s.workspace_bytes = one.used;
  s.workspaces = at->take<char>(s.workspace_bytes * call.parallel.threads);
  return s;
}

size_t scratch(const Call& call) {
  Cursor at = {nullptr, 0};
  describe(call, &at);
  return static_cast<size_t>(at.used);
}

int64_t visible_windows(const Operand& cache, int64_t length, int64_t window, int64_t stride) {
  int64_t count = length < window ? 0 : (length - window) / stride + 1;
  return smaller(count, cache.shape[1] * kBlock);
}

// Scores of all heads against 64 compressed keys of one kv head.
void score_windows(const Selection& s, const Workspace& w, const Operand& cache, int64_t head,
                   int64_t block) {
  const char* keys = static_cast<const char*>(cache.data);
  int64_t bytes = kv_key_block_bytes(cache.dtype, s.head_dim);
  keys += (head * cache.shape[1] + block) * bytes;
  // Blocks follow one another: the next one is fetched while this one is multiplied.
  Ahead ahead = fetch_over(keys + bytes, bytes, score_turns(s.heads, s.head_dim, cache.dtype));
  score_block(w.queries, {nullptr, s.heads}, keys, cache.dtype, &ahead);
}

uint32_t lanes_below(int64_t n) { return n >= kLanes ? 0xffff : (1u << n) - 1; }

// lse[g] = log of the sum of exp(score) over the first count compressed keys.
void log_sum_exp(const Selection& s, const Workspace& w, const Operand& cache, int64_t head,
                 int64_t count) {
  float* high = w.lse;
  float* total = w.totals;
  for (int64_t first = 0; first < count; first += kBlock) {
    score_windows(s, w, cache, head, first / kBlock);
    int64_t n = smaller(kBlock, count - first);
    for (int64_t g = 0; g < s.heads; g++) {
      const float* scores = w.queries.scores + g * kBlock;
      V top = set(-kInfinity);
      for (int64_t i = 0; i < n; i += kLanes) {
        top = max(select(lanes_below(n - i), load(scores + i), set(-kInfinity)), top);
      }
      float before = first == 0 ? -kInfinity : high[g];
      float best = largest(top);
      best = best > before ? best : before;
      V sums = zero();
      for (int64_t i = 0; i < n; i += kLanes) {
        V weight = exp(sub(load(scores + i), set(best)));
        sums = add(sums, select(lanes_below(n - i), weight, zero()));
      }
      float kept = first == 0 ? 0 : total[g] * exp_one(before - best);
      total[g] = kept + sum(sums);
      high[g] = best;
    }
  }
  for (int64_t g = 0; g < s.heads; g++) w.lse[g] = high[g] + log_one(total[g]);
}

// windows[j] = log of the sum over heads of exp(score - lse).
void score_fine(const Selection& s, const Workspace& w, int64_t head, int64_t visible) {
  for (int64_t first = 0; first < visible; first += kBlock) {
    score_windows(s, w, s.call->operands[kFine], head, first / kBlock);
    for (int64_t i = 0; i < kBlock; i += kLanes) {
      V top = set(-kInfinity);
      for (int64_t g = 0; g < s.heads; g++) {
        top = max(sub(load(w.queries.scores + g * kBlock + i), set(w.lse[g])), top);
      }
      V total = zero();
      for (int64_t g = 0; g < s.heads; g++) {
        V value = sub(load(w.queries.scores + g * kBlock + i), set(w.lse[g]));
        total = add(total, exp(sub(value, top)));
      }
      store(w.windows + first + i, add(top, log(total)));
    }
  }
}

void select_one(void* user, int64_t index, int32_t thread) {
  const Selection& s = *static_cast<const Selection*>(user);
  const Operand* o = s.call->operands;
  int64_t kv_heads = o[kFine].shape[0];
  int64_t token = index / kv_heads;
  int64_t head = index % kv_heads;
  int64_t position = s.call->past + token;
  int64_t last = position / s.block_size;
  int32_t* out = row<int32_t>(o[kY], token) + head * (1 + s.most);
  if (position + 1 < s.dense_len || last >= s.block_capacity) {
    for (int64_t i = 0; i <= s.most; i++) out[i] = -1;
    return;
  }
  Cursor at = {s.workspaces + thread * s.workspace_bytes, 0};
  Workspace w = open_workspace(s, &at);
  int64_t fine = visible_windows(o[kFine], position + 1, s.window, s.stride);
  int64_t coarse =
      visible_windows(o[kCoarse], position + 1, kCoarser * s.window, kCoarser * s.stride);
  if (fine > 0 && (coarse > 0 || s.exact)) {
    const float* q = row<float>(o[kQ], token) + head * s.heads * s.head_dim;
    for (int64_t g = 0; g < s.heads; g++) {
      load_query(w.queries, o[kFine].dtype, g, q + g * s.head_dim, s.scale);
    }
    log_sum_exp(s, w, s.exact ? o[kFine] : o[kCoarse], head, s.exact ? fine : coarse);
    score_fine(s, w, head, fine);
  } else {
    for (int64_t j = 0; j < fine; j++) w.windows[j] = kNever;
  }
  pool_blocks(s.choice, w.windows, fine, last, w.keys);
  choose_blocks(s.choice, w.keys, last, out, s.most);
}

void run(const Call& call) {
  Cursor at = {call.scratch, 0};
  Selection s = describe(call, &at);
  run_parallel(call, call.tokens * call.operands[kFine].shape[0], select_one, &s);
}

ARK_KERNEL_END

ARK_REGISTER("select_blocks", operand_names, attribute_names, check, scratch, run)
