// Attention over cached keys and values, dense or over chosen blocks: how the work is shared out.
#pragma once

#include "tile.h"

ARK_KERNEL_BEGIN

inline const char* check_attention(const Call& call, const Operand& q, const Operand& key,
                                   const Operand& value, const Operand& y, double heads,
                                   double scale) {
  if (!is_key_cache(key) || key.shape[1] < 1) {
    return "key must be f32, f16, i8 or u4 [kv_heads, blocks, head_dim, 64]";
  }
  if (!is_value_cache(value, key)) {
    return "value must be like key, [kv_heads, blocks * 64, head_dim]";
  }
  // Sums of products of int8 codes stay in 32 bits.
  if (key.shape[2] > 65536) return "head_dim must be at most 65536";
  if (!is_integer(heads, 1, 65536) || static_cast<int64_t>(heads) % key.shape[0] != 0) {
    return "heads must be a multiple of the cache's kv_heads";
  }
  int64_t columns = static_cast<int64_t>(heads) * key.shape[2];
  if (!is_float_rows(q, call) || q.shape[1] != columns) {
    return "q must be f32 [tokens, heads * head_dim]";
  }
  if (!is_float_rows(y, call) || y.shape[1] != columns) {
    return "y must be f32 [tokens, heads * head_dim]";
  }
  return is_finite(scale) ? nullptr : "scale must be finite";
}

// One token's blocks always go to several threads; so do those of few tokens among many threads.
inline int64_t most_tokens_in_segments(const Attention& a) {
  int64_t few = a.call->parallel.threads / (2 * a.key->shape[0]);
  return smaller(larger(few, 1), a.call->tokens);
}

// Fills the derived members and lays the scratch out.
inline void place_attention(Attention* a, Cursor* at) {
  const Call& call = *a->call;
  int64_t kv_heads = a->key->shape[0];
  a->group = a->heads / kv_heads;
  a->head_dim = a->key->shape[2];
  a->padded = round_up(a->head_dim, kLanes);
  a->tile_rows = smaller(a->group, kRowTile);
  // At least two tiles per thread where there are as many tokens.
  int64_t fair = call.tokens * kv_heads / (2 * call.parallel.threads);
  a->tile_tokens = a->group > kRowTile ? 1 : smaller(kRowTile / a->group, larger(fair, 1));
  a->tiles = quotient_up(call.tokens, a->tile_tokens) * quotient_up(a->group, a->tile_rows);

  Cursor one = {nullptr, 0};
  take_workspace(*a, &one);
  a->workspace_bytes = one.used;
  a->workspaces = at->take<char>(a->workspace_bytes * call.parallel.threads);
  // Sized for the most tokens that need it whatever the call, so that fewer never need more.
  int64_t segments = quotient_up(larger(a->key->shape[1], list_capacity(*a)), kSegment);
  int64_t token_rows = quotient_up(a->group, a->tile_rows) * a->tile_rows;
  int64_t rows = most_tokens_in_segments(*a) * kv_heads * token_rows;
  a->partials = at->take<float>(rows * segments * (2 * kLanes + a->padded));
}

inline void run_tile(void* user, int64_t index, int32_t thread) {
  const Attention& a = *static_cast<const Attention*>(user);
  Place p = find_place(a, index);
  Workspace w = open_workspace(a, p, thread);
  for (int64_t t = 0; t < p.tokens; t++) {
    BlockList list = list_blocks(a, p.head, p.first_token + t, w.items + t * list_capacity(a));
    w.readers[t] = {list, 0, list.count};
  }
  fetch_first(a, w);
  load_queries(a, p, w);
  clear_rows(w.sums, 0, p.tokens * p.rows, a.padded);
  clear_rows(w.merged, 0, p.tokens * p.rows, a.padded);
  walk_blocks(a, p, w, true);
  write_rows(a, p, w.merged);
}

// The sums of one segment of a tile of one token, kept until all segments are done.
inline void use_partial_sums(const Attention& a, int64_t tile, int64_t segment, Sums* s) {
  int64_t rows = round_up(a.tile_rows, kLanes);
  s->high = a.partials + (tile * a.segments + segment) * (2 * rows + a.tile_rows * a.padded);
  s->total = s->high + rows;
  s->out = s->total + rows;
}

inline void run_segment(void* user, int64_t index, int32_t thread) {
  const Attention& a = *static_cast<const Attention*>(user);
  int64_t tile = index / a.segments;
  int64_t segment = index % a.segments;
  Place p = find_place(a, tile);
  Workspace w = open_workspace(a, p, thread);
  BlockList list = list_blocks(a, p.head, p.first_token, w.items);
  int64_t first = smaller(segment * kSegment, list.count);
  w.readers[0] = {list, first, smaller(first + kSegment, list.count)};
  fetch_first(a, w);
  if (*w.loaded != tile) load_queries(a, p, w);
  *w.loaded = tile;
  use_partial_sums(a, tile, segment, &w.sums);
  clear_rows(w.sums, 0, p.rows, a.padded);
  walk_blocks(a, p, w, false);
}

inline void merge_segments(void* user, int64_t index, int32_t thread) {
  const Attention& a = *static_cast<const Attention*>(user);
  Place p = find_place(a, index);
  Workspace w = open_workspace(a, p, thread);
  clear_rows(w.merged, 0, p.rows, a.padded);
  for (int64_t s = 0; s < a.segments; s++) {
    use_partial_sums(a, index, s, &w.sums);
    merge_rows(w.sums, 0, w.merged, 0, p.rows, a.padded);
  }
  write_rows(a, p, w.merged);
}

inline void run_attention(Attention* a) {
  Cursor at = {a->call->scratch, 0};
  place_attention(a, &at);
  int64_t kv_heads = a->key->shape[0];
  if (a->call->parallel.threads > 1 && a->call->tokens <= most_tokens_in_segments(*a)) {
    int64_t longest = 0;
    for (int64_t i = 0; i < a->call->tokens * kv_heads; i++) {
      longest = larger(longest, count_bound(*a, i % kv_heads, i / kv_heads));
    }
    a->segments = quotient_up(longest, kSegment);
  }
  if (a->segments <= 1) {
    run_parallel(*a->call, kv_heads * a->tiles, run_tile, a);
    return;
  }
  for (int32_t t = 0; t < a->call->parallel.threads; t++) {
    *open_workspace(*a, find_place(*a, 0), t).loaded = -1;
  }
  run_parallel(*a->call, kv_heads * a->tiles * a->segments, run_segment, a);
  run_parallel(*a->call, kv_heads * a->tiles, merge_segments, a);
}

ARK_KERNEL_END
