// Attention over cached keys and values, dense or over chosen blocks.
//
// The blocks that a row attends to are cut in segments of fixed length. A segment is summed from
// scratch and then merged into the row's result, in order: so a row has the same bits whether its
// segments ran one after the other or on several threads, alone or among other rows.
#pragma once

#include "attend_block.h"

ARK_KERNEL_BEGIN

constexpr int64_t kSegment = 8;  // blocks

// Some tokens of one block of the caches.
struct Item {
  int64_t block;
  uint64_t mask;
};

struct Attention {
  const Call* call;
  const Operand* q;
  const Operand* key;
  const Operand* value;
  const Operand* chosen;  // i32 [tokens, kv_heads * (1 + most)], or null: dense
  const Operand* y;
  int64_t heads;
  int64_t block_size;
  float scale;
  // What follows is derived.
  int64_t group;  // query heads per kv head
  int64_t head_dim;
  int64_t padded;
  int64_t most;       // blocks that a row of chosen can hold
  int64_t tile_rows;  // query rows per tile
  int64_t tiles;      // per kv head
  int64_t segments;   // 0: a tile runs all its segments by itself
  char* workspaces;   // one per thread
  int64_t workspace_bytes;
  float* partials;  // [kv_heads][tiles][segments][tile_rows][kLanes + padded]
};

inline const char* check_attention(const Call& call, const Operand& q, const Operand& key,
                                   const Operand& value, const Operand& y, double heads,
                                   double scale) {
  if (!is_key_cache(key) || !is_half_or_float(key.dtype) || key.shape[1] < 1) {
    return "key must be fp16 or fp32 [kv_heads, blocks, head_dim, 64]";
  }
  if (!is_value_cache(value, key)) {
    return "value must be like key, [kv_heads, blocks * 64, head_dim]";
  }
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

// Fills the derived members and lays the scratch out.
inline void place_attention(Attention* a, Cursor* at) {
  a->group = a->heads / a->key->shape[0];
  a->head_dim = a->key->shape[2];
  a->padded = round_up(a->head_dim, kLanes);
  int64_t rows = a->group * (a->chosen ? 1 : a->call->tokens);
  a->tile_rows = smaller(rows, kRowTile);
  a->tiles = quotient_up(rows, a->tile_rows) * (a->chosen ? a->call->tokens : 1);
  // The lists of tokens that are one block long or chosen have at most this many segments.
  a->segments = a->call->tokens == 1 ? quotient_up(a->key->shape[1], kSegment) : 0;

  Cursor one = {nullptr, 0};
  one.take<float>(kRowTile * a->head_dim);
  one.take<float>(2 * kRowTile * a->padded);
  one.take<float>(kRowTile * kBlock + a->head_dim * kBlock + kBlock * a->padded);
  one.take<Item>(a->most);
  a->workspace_bytes = one.used;
  a->workspaces = at->take<char>(a->workspace_bytes * a->call->parallel.threads);
  // Sized for one token whatever the call, so that fewer tokens never need more.
  int64_t head_tiles = quotient_up(a->group, kRowTile) * smaller(a->group, kRowTile);
  a->partials = at->take<float>(a->key->shape[0] * head_tiles *
                                quotient_up(a->key->shape[1], kSegment) * (kLanes + a->padded));
}

struct Workspace {
  RowTile tile;
  float* merged;  // [kRowTile][padded]
  float merged_high[kRowTile];
  float merged_total[kRowTile];
  Item* items;
};

inline Workspace open_workspace(const Attention& a, int32_t thread) {
  Workspace w;
  Cursor at = {a.workspaces + thread * a.workspace_bytes, 0};
  w.tile.head_dim = a.head_dim;
  w.tile.padded = a.padded;
  w.tile.q = at.take<float>(kRowTile * a.head_dim);
  w.tile.out = at.take<float>(2 * kRowTile * a.padded);
  w.merged = w.tile.out + kRowTile * a.padded;
  w.tile.scores = at.take<float>(kRowTile * kBlock + a.head_dim * kBlock + kBlock * a.padded);
  w.tile.key_block = w.tile.scores + kRowTile * kBlock;
  w.tile.value_block = w.tile.key_block + a.head_dim * kBlock;
  w.items = at.take<Item>(a.most);
  return w;
}

// Where a tile lies: rows [first, first + rows) of one kv head, counted token by token.
struct Place {
  int64_t head;
  int64_t first;
  int64_t rows;
};
inline Place find_place(const Attention& a, int64_t index) {
  int64_t head = index / a.tiles;
  int64_t tile = index % a.tiles;
  if (!a.chosen) {
    int64_t first = tile * a.tile_rows;
    return {head, first, smaller(a.tile_rows, a.group * a.call->tokens - first)};
  }
  int64_t per_token = quotient_up(a.group, a.tile_rows);
  int64_t inside = tile % per_token * a.tile_rows;
  return {head, tile / per_token * a.group + inside, smaller(a.tile_rows, a.group - inside)};
}
inline const float* query_of(const Attention& a, const Place& p, int64_t r) {
  int64_t index = p.first + r;
  int64_t column = (p.head * a.group + index % a.group) * a.head_dim;
  return row<float>(*a.q, index / a.group) + column;
}
inline float* output_of(const Attention& a, const Place& p, int64_t r) {
  int64_t index = p.first + r;
  int64_t column = (p.head * a.group + index % a.group) * a.head_dim;
  return row<float>(*a.y, index / a.group) + column;
}

inline void load_tile(const Attention& a, const Place& p, RowTile* tile) {
  tile->rows = p.rows;
  for (int64_t r = 0; r < p.rows; r++) {
    const float* q = query_of(a, p, r);
    for (int64_t j = 0; j < a.head_dim; j += kLanes) {
      int64_t n = a.head_dim - j;
      store_upto(tile->q + r * a.head_dim + j, mul(load_upto(q + j, n), set(a.scale)), n);
    }
    int64_t position = a.call->past + (p.first + r) / a.group;
    tile->position[r] = smaller(position, a.key->shape[1] * kBlock - 1);
  }
}

// The blocks of a tile: count items in w->items, or with dense set, blocks 0 .. count - 1. Entries
// are taken for what they are worth: ids outside the causal blocks are dropped.
inline int64_t list_blocks(const Attention& a, const Place& p, Workspace* w, bool* dense) {
  int64_t position = w->tile.position[p.rows - 1];
  *dense = true;
  if (!a.chosen) return position / kBlock + 1;
  const int32_t* entries = row<int32_t>(*a.chosen, p.first / a.group) + p.head * (1 + a.most);
  if (entries[0] < 0) return position / kBlock + 1;
  *dense = false;
  int64_t count = 0;
  for (int64_t i = 0; i < smaller(entries[0], a.most); i++) {
    int64_t id = entries[1 + i];
    if (id < 0 || id > position / a.block_size) continue;
    int64_t block = id * a.block_size / kBlock;
    uint64_t mask = first_bits(a.block_size) << (id * a.block_size % kBlock);
    if (count > 0 && w->items[count - 1].block == block) {
      w->items[count - 1].mask |= mask;
    } else {
      w->items[count++] = {block, mask};
    }
  }
  return count;
}

inline void attend_segment(const Attention& a, const Place& p, Workspace* w, bool dense,
                           int64_t first, int64_t last) {
  RowTile* tile = &w->tile;
  for (int64_t r = 0; r < p.rows; r++) {
    tile->high[r] = -kInfinity;
    tile->total[r] = 0;
  }
  memset(tile->out, 0, static_cast<size_t>(p.rows * a.padded) * sizeof(float));
  int64_t element = a.key->dtype == DType::f16 ? 2 : 4;
  int64_t block_bytes = a.head_dim * kBlock * element;
  int64_t head_bytes = p.head * a.key->shape[1] * block_bytes;
  const char* keys = static_cast<const char*>(a.key->data) + head_bytes;
  const char* values = static_cast<const char*>(a.value->data) + head_bytes;
  for (int64_t i = first; i < last; i++) {
    Item item = dense ? Item{i, ~uint64_t{0}} : w->items[i];
    attend_block(tile, keys + item.block * block_bytes, values + item.block * block_bytes,
                 a.key->dtype, item.block, item.mask);
  }
}

// Adds one segment's sums to a row's.
inline void merge_row(float high, float total, const float* out, int64_t padded, float* merged_high,
                      float* merged_total, float* merged) {
  if (high == -kInfinity) return;
  float top = high > *merged_high ? high : *merged_high;
  float keep = exp_one(*merged_high - top);
  float take = exp_one(high - top);
  for (int64_t j = 0; j < padded; j += kLanes) {
    V kept = mul(load(merged + j), set(keep));
    store(merged + j, fma(load(out + j), set(take), kept));
  }
  *merged_total = *merged_total * keep + total * take;
  *merged_high = top;
}

inline void clear_merged(const Attention& a, int64_t rows, Workspace* w) {
  for (int64_t r = 0; r < rows; r++) {
    w->merged_high[r] = -kInfinity;
    w->merged_total[r] = 0;
  }
  memset(w->merged, 0, static_cast<size_t>(rows * a.padded) * sizeof(float));
}

inline void write_tile(const Attention& a, const Place& p, const Workspace& w) {
  for (int64_t r = 0; r < p.rows; r++) {
    float total = w.merged_total[r];
    V divisor = set(total == 0 ? 1.0f : total);  // a row with no block at all gives zeros
    float* y = output_of(a, p, r);
    for (int64_t j = 0; j < a.head_dim; j += kLanes) {
      store_upto(y + j, div(load(w.merged + r * a.padded + j), divisor), a.head_dim - j);
    }
  }
}

inline void run_tile(void* user, int64_t index, int32_t thread) {
  const Attention& a = *static_cast<const Attention*>(user);
  Workspace w = open_workspace(a, thread);
  Place p = find_place(a, index);
  load_tile(a, p, &w.tile);
  bool dense;
  int64_t count = list_blocks(a, p, &w, &dense);
  clear_merged(a, p.rows, &w);
  for (int64_t i = 0; i < count; i += kSegment) {
    attend_segment(a, p, &w, dense, i, smaller(i + kSegment, count));
    for (int64_t r = 0; r < p.rows; r++) {
      merge_row(w.tile.high[r], w.tile.total[r], w.tile.out + r * a.padded, a.padded,
                &w.merged_high[r], &w.merged_total[r], w.merged + r * a.padded);
    }
  }
  write_tile(a, p, w);
}

inline float* partial(const Attention& a, int64_t tile, int64_t segment, int64_t r) {
  return a.partials + ((tile * a.segments + segment) * a.tile_rows + r) * (kLanes + a.padded);
}

inline void run_segment(void* user, int64_t index, int32_t thread) {
  const Attention& a = *static_cast<const Attention*>(user);
  int64_t segment = index % a.segments;
  Workspace w = open_workspace(a, thread);
  Place p = find_place(a, index / a.segments);
  load_tile(a, p, &w.tile);
  bool dense;
  int64_t count = list_blocks(a, p, &w, &dense);
  int64_t first = smaller(segment * kSegment, count);
  attend_segment(a, p, &w, dense, first, smaller(first + kSegment, count));
  for (int64_t r = 0; r < p.rows; r++) {
    float* to = partial(a, index / a.segments, segment, r);
    to[0] = w.tile.high[r];
    to[1] = w.tile.total[r];
    memcpy(to + kLanes, w.tile.out + r * a.padded, static_cast<size_t>(a.padded) * sizeof(float));
  }
}

inline void merge_segments(void* user, int64_t index, int32_t thread) {
  const Attention& a = *static_cast<const Attention*>(user);
  Workspace w = open_workspace(a, thread);
  Place p = find_place(a, index);
  clear_merged(a, p.rows, &w);
  for (int64_t s = 0; s < a.segments; s++) {
    for (int64_t r = 0; r < p.rows; r++) {
      const float* from = partial(a, index, s, r);
      merge_row(from[0], from[1], from + kLanes, a.padded, &w.merged_high[r], &w.merged_total[r],
                w.merged + r * a.padded);
    }
  }
  write_tile(a, p, w);
}

inline void run_attention(Attention* a) {
  Cursor at = {a->call->scratch, 0};
  place_attention(a, &at);
  int64_t tiles = a->key->shape[0] * a->tiles;
  if (a->segments > 0) {
    // No more segments than this token can have.
    int64_t blocks = smaller(a->call->past / kBlock + 1, a->key->shape[1]);
    a->segments = quotient_up(blocks, kSegment);
  }
  if (a->segments <= 1) {
    run_parallel(*a->call, tiles, run_tile, a);
    return;
  }
  run_parallel(*a->call, tiles * a->segments, run_segment, a);
  run_parallel(*a->call, tiles, merge_segments, a);
}

ARK_KERNEL_END
