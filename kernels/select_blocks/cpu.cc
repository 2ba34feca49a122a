// InfLLM v2 block selection: which blocks of tokens the heads of a group attend to.
#include "selection.h"

ARK_KERNEL_BEGIN

const char* const operand_names[] = {"q", "fine", "coarse", "y", nullptr};
const char* const attribute_names[] = {
    "heads",        "scale", "block_size", "kernel_size", "kernel_stride", "init_blocks",
    "local_blocks", "topk",  "dense_len",  "generation",  "exact_lse",     nullptr};

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

size_t scratch(const Call& call) {
  Cursor at = {nullptr, 0};
  describe(call, &at);
  return static_cast<size_t>(at.used);
}

// One thread does all of an item.
void select_item(void* user, int64_t index, int32_t thread) {
  const Selection& s = *static_cast<const Selection*>(user);
  int64_t head = index % s.call->operands[kFine].shape[0];
  Item i = open_item(s, thread);
  ThreadSpace space = open_thread_space(s, thread);
  start_item(s, index, &i);
  int64_t basis = segments_of(i, i.basis);
  for (int64_t k = 0; k < basis; k++) sum_item_segment(s, i, head, k, space);
  merge_segments(i.partial, basis, i.q.rows, i.lse);
  int64_t fine = segments_of(i, i.fine);
  for (int64_t k = 0; k < fine; k++) score_item_segment(s, i, head, k, space);
  choose_item(s, i, head);
}

// Fewer items than threads: these share an item by its segments.
struct SharedItems {
  const Selection* s;
  Item* items;
  int64_t segments;
};

void start_shared(void* user, int64_t index, int32_t) {
  const SharedItems& shared = *static_cast<const SharedItems*>(user);
  start_item(*shared.s, index, &shared.items[index]);
}
void sum_shared(void* user, int64_t index, int32_t thread) {
  const SharedItems& shared = *static_cast<const SharedItems*>(user);
  const Selection& s = *shared.s;
  int64_t item = index / shared.segments;
  sum_item_segment(s, shared.items[item], item % s.call->operands[kFine].shape[0],
                   index % shared.segments, open_thread_space(s, thread));
}
void score_shared(void* user, int64_t index, int32_t thread) {
  const SharedItems& shared = *static_cast<const SharedItems*>(user);
  const Selection& s = *shared.s;
  int64_t item = index / shared.segments;
  score_item_segment(s, shared.items[item], item % s.call->operands[kFine].shape[0],
                     index % shared.segments, open_thread_space(s, thread));
}
void choose_shared(void* user, int64_t index, int32_t) {
  const SharedItems& shared = *static_cast<const SharedItems*>(user);
  choose_item(*shared.s, shared.items[index], index % shared.s->call->operands[kFine].shape[0]);
}

constexpr int64_t kMostShared = 64;

void run(const Call& call) {
  Cursor at = {call.scratch, 0};
  Selection s = describe(call, &at);
  int64_t count = s.tiles * call.operands[kFine].shape[0];
  if (count >= call.parallel.threads || count > kMostShared) {
    run_parallel(call, count, select_item, &s);
    return;
  }
  Item items[kMostShared];
  int64_t basis = 0, fine = 0;
  for (int64_t k = 0; k < count; k++) items[k] = open_item(s, k);
  SharedItems shared = {&s, items, 0};
  run_parallel(call, count, start_shared, &shared);
  for (int64_t k = 0; k < count; k++) {
    basis = larger(basis, segments_of(items[k], items[k].basis));
    fine = larger(fine, segments_of(items[k], items[k].fine));
  }
  shared.segments = basis;
  if (basis > 0) run_parallel(call, count * basis, sum_shared, &shared);
  for (int64_t k = 0; k < count; k++) {
    merge_segments(items[k].partial, basis, items[k].q.rows, items[k].lse);
  }
  shared.segments = fine;
  if (fine > 0) run_parallel(call, count * fine, score_shared, &shared);
  run_parallel(call, count, choose_shared, &shared);
}

ARK_KERNEL_END

ARK_REGISTER("select_blocks", operand_names, attribute_names, check, scratch, run)
