// A call of select_blocks, cut in items: a tile of tokens and the heads of one kv head.
#pragma once

#include "top_blocks.h"
#include "window_scores.h"

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
constexpr int64_t kCoarser = 4;     // coarse windows are that many times as long and as far apart
constexpr int64_t kTileRows = 128;  // query rows that share a strip of keys

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
  int64_t tile;  // tokens that are scored together
  int64_t tiles;
  int64_t window_capacity;
  int64_t block_capacity;
  int64_t segments;
  char* items;
  int64_t item_bytes;
  char* threads;
  int64_t thread_bytes;
};

// A tile of tokens and one kv head.
struct Item {
  Queries q;
  float* lse;       // [rows]
  float* partial;   // [segments][rows][2]
  float* windows;   // [tile][window_capacity]
  uint32_t* keys;   // of all causal blocks
  uint32_t* spare;  // as many
  int64_t* tokens;  // those that choose blocks
  int64_t* fine;    // [rows], windows that blocks of a row are chosen by
  int64_t* basis;   // [rows], windows that its lse sums over
};

struct ThreadSpace {
  Strip strip;
  LaneSums lanes;
};

inline int64_t integer(const Call& call, int index) {
  return static_cast<int64_t>(call.attributes[index]);
}

inline const Operand& basis_cache(const Selection& s) {
  return s.call->operands[s.exact ? kFine : kCoarse];
}

inline Item take_item(const Selection& s, Cursor* at) {
  int64_t rows = s.tile * s.heads;
  Item i;
  i.q = take_queries(at, rows, s.head_dim, s.call->operands[kFine].dtype);
  i.lse = at->take<float>(rows);
  i.partial = at->take<float>(s.segments * rows * 2);
  i.windows = at->take<float>(s.tile * s.window_capacity);
  i.keys = at->take<uint32_t>(s.block_capacity);
  i.spare = at->take<uint32_t>(s.block_capacity);
  i.tokens = at->take<int64_t>(s.tile);
  i.fine = at->take<int64_t>(rows);
  i.basis = at->take<int64_t>(rows);
  return i;
}

inline ThreadSpace take_thread_space(const Selection& s, Cursor* at) {
  int64_t rows = s.tile * s.heads;
  ThreadSpace t;
  t.strip = take_strip(at, rows, s.head_dim);
  t.lanes.high = at->take<float>(rows * kLanes);
  t.lanes.total = at->take<float>(rows * kLanes);
  return t;
}

inline Selection describe(const Call& call, Cursor* at) {
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
  s.tile = larger(1, smaller(kTileRows / s.heads, call.tokens));
  s.tiles = quotient_up(call.tokens, s.tile);
  s.window_capacity = o[kFine].shape[1] * kKvBlock;
  // As many tokens as the fine windows can stand for have no more blocks than this.
  s.block_capacity = (s.window_capacity * s.stride + s.window) / s.block_size + 2;
  s.segments = quotient_up(basis_cache(s).shape[1] * kKvBlock, kSegment);
  Cursor item = {nullptr, 0};
  take_item(s, &item);
  s.item_bytes = item.used;
  Cursor space = {nullptr, 0};
  take_thread_space(s, &space);
  s.thread_bytes = space.used;
  s.items = at->take<char>(s.item_bytes * call.parallel.threads);
  s.threads = at->take<char>(s.thread_bytes * call.parallel.threads);
  return s;
}

inline int64_t visible_windows(const Operand& cache, int64_t length, int64_t window,
                               int64_t stride) {
  int64_t count = length < window ? 0 : (length - window) / stride + 1;
  return smaller(count, cache.shape[1] * kKvBlock);
}

inline Windows windows_of(const Operand& cache, int64_t head) {
  int64_t bytes = kv_key_block_bytes(cache.dtype, cache.shape[2]);
  return {static_cast<const char*>(cache.data) + head * cache.shape[1] * bytes, bytes};
}

inline Item open_item(const Selection& s, int64_t slot) {
  Cursor at = {s.items + slot * s.item_bytes, 0};
  return take_item(s, &at);
}

inline ThreadSpace open_thread_space(const Selection& s, int32_t thread) {
  Cursor at = {s.threads + thread * s.thread_bytes, 0};
  return take_thread_space(s, &at);
}

// The rows of an item: tokens [first, ...) that choose, each with the heads of its group. What is
// kept of them in memory has s.tile tokens, of which the first i.q.rows / s.heads are used.
inline void start_item(const Selection& s, int64_t index, Item* i) {
  const Operand* o = s.call->operands;
  int64_t head = index % o[kFine].shape[0];
  int64_t first = index / o[kFine].shape[0] * s.tile;
  int64_t end = smaller(first + s.tile, s.call->tokens);
  int64_t count = 0;
  for (int64_t token = first; token < end; token++) {
    int64_t position = position_of(*s.call, token);
    if (position + 1 < s.dense_len || position / s.block_size >= s.block_capacity) {
      int32_t* out = row<int32_t>(o[kY], token) + head * (1 + s.most);
      for (int64_t b = 0; b <= s.most; b++) out[b] = -1;
      continue;
    }
    // Windows of drafted tokens are not compressed before these are accepted.
    int64_t length = s.call->ancestors ? s.call->past : position + 1;
    int64_t fine = visible_windows(o[kFine], length, s.window, s.stride);
    int64_t coarse = visible_windows(o[kCoarse], length, kCoarser * s.window, kCoarser * s.stride);
    int64_t choosing = windows_of_choice(s.choice, position / s.block_size);
    const float* q = row<float>(o[kQ], token) + head * s.heads * s.head_dim;
    for (int64_t g = 0; g < s.heads; g++) {
      int64_t r = count * s.heads + g;
      i->basis[r] = s.exact ? fine : coarse;
      i->fine[r] = smaller(fine, choosing);
      set_query(i->q, r, q + g * s.head_dim, s.scale * kLog2E);
    }
    i->tokens[count++] = token;
  }
  i->q.rows = count * s.heads;
}

inline void sum_item_segment(const Selection& s, const Item& i, int64_t head, int64_t segment,
                             const ThreadSpace& space) {
  sum_segment(i.q, windows_of(basis_cache(s), head), segment, i.basis, space.strip, space.lanes,
              i.partial + segment * i.q.rows * 2);
}

inline int64_t segments_of(const Item& i, const int64_t* visible) {
  int64_t most = 0;
  for (int64_t r = 0; r < i.q.rows; r++) most = larger(most, visible[r]);
  return quotient_up(most, kSegment);
}

// Scores of the windows of a segment.
inline void score_item_segment(const Selection& s, const Item& i, int64_t head, int64_t segment,
                               const ThreadSpace& space) {
  Windows windows = windows_of(s.call->operands[kFine], head);
  int64_t most = 0;
  for (int64_t r = 0; r < i.q.rows; r++) most = larger(most, i.fine[r]);
  int64_t end = smaller(most, (segment + 1) * kSegment);
  for (int64_t w = segment * kSegment; w < end; w += kKvBlock) {
    const char* block = windows.keys + w / kKvBlock * windows.block_bytes;
    int64_t n = smaller(kKvBlock, end - w);
    score_block(i.q, block, n, space.strip);
    for (int64_t r = 0; r < i.q.rows; r += s.heads) {
      float* out = i.windows + r / s.heads * s.window_capacity + w;
      const float* scores = space.strip.scores + r * kKvBlock;
      const float* lse = i.lse + r;
      int64_t count = smaller(n, i.fine[r] - w);
      for (int64_t at = 0; at < count; at += kLanes) {
        store(out + at, sum_heads(scores + at, lse, s.heads));
      }
      // Apart from the sums, so that several logarithms are under way at once.
      for (int64_t at = 0; at < count; at += kLanes) {
        uint32_t lanes = lanes_below(count - at);
        store(out + at, log_of_sum(load(out + at), scores + at, lse, s.heads, lanes));
      }
    }
  }
}

inline void choose_item(const Selection& s, const Item& i, int64_t head) {
  const Operand& y = s.call->operands[kY];
  for (int64_t t = 0; t < i.q.rows / s.heads; t++) {
    int64_t last = position_of(*s.call, i.tokens[t]) / s.block_size;
    int64_t fine = i.fine[t * s.heads];
    float* windows = i.windows + t * s.window_capacity;
    if (i.basis[t * s.heads] == 0) {
      for (int64_t j = 0; j < fine; j++) windows[j] = kNever;
    }
    pool_blocks(s.choice, windows, fine, last, i.keys);
    choose_blocks(s.choice, i.keys, last, i.spare,
                  row<int32_t>(y, i.tokens[t]) + head * (1 + s.most), s.most);
  }
}

ARK_KERNEL_END
