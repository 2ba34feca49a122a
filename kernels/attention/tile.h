// A tile: the query rows of some neighbouring tokens for one kv head, walked through their blocks.
//
// Rows go block by block: a block that several tokens see is loaded once for all of them. The
// blocks of a token are cut in segments of fixed length, each summed from scratch and then merged
// into the token's rows, in order: so a row has the same bits whether its segments ran one after
// the other or on several threads, alone or among other rows.
#pragma once

#include "attend_block.h"
#include "block_lists.h"

ARK_KERNEL_BEGIN

constexpr int64_t kSegment = 8;  // blocks

// Rows [first_row, first_row + rows) of each of the tokens' groups of query heads.
struct Place {
  int64_t head;
  int64_t first_token;
  int64_t tokens;
  int64_t first_row;
  int64_t rows;
};
inline Place find_place(const Attention& a, int64_t index) {
  int64_t parts = quotient_up(a.group, a.tile_rows);
  // Later tokens see more blocks: with them first, threads end together.
  int64_t tile = a.tiles - 1 - index % a.tiles;
  int64_t token = tile / parts * a.tile_tokens;
  int64_t row = tile % parts * a.tile_rows;
  return {index / a.tiles, token, smaller(a.tile_tokens, a.call->tokens - token), row,
          smaller(a.tile_rows, a.group - row)};
}

// One token's way through its blocks.
struct Reader {
  BlockList list;
  int64_t next;
  int64_t end;
};

struct Workspace {
  Queries queries;
  Sums sums;
  Sums merged;
  Caches caches;
  Reader* readers;
  Item* items;
  int64_t* loaded;  // the tile whose queries these are
};

inline Sums take_sums(Cursor* at, int64_t padded, int64_t codes) {
  Sums s;
  s.high = at->take<float>(kRowTile);
  s.total = at->take<float>(kRowTile);
  s.out = at->take<float>(kRowTile * padded);
  s.factors = at->take<float>(kRowTile);
  s.codes = at->take<int8_t>(codes);
  s.steps = at->take<float>(kRowTile);
  return s;
}

inline Workspace take_workspace(const Attention& a, Cursor* at) {
  DType type = a.key->dtype;
  Workspace w;
  w.queries = take_queries(at, type, kRowTile, a.head_dim);
  w.sums = take_sums(at, a.padded, type == DType::i8 ? kRowTile * kBlock : 0);
  w.merged = take_sums(at, a.padded, 0);
  bool as_is = type == DType::i8 || (type != DType::u4 && a.head_dim == a.padded);
  w.caches.type = type;
  w.caches.head_dim = a.head_dim;
  w.caches.padded = a.padded;
  w.caches.key_block = at->take<float>(type == DType::u4 ? a.head_dim * kBlock : 0);
  w.caches.value_block = at->take<float>(as_is ? 0 : kBlock * a.padded);
  w.readers = at->take<Reader>(kRowTile);
  w.items = at->take<Item>(kRowTile * list_capacity(a));
  w.loaded = at->take<int64_t>(1);
  return w;
}

inline Workspace open_workspace(const Attention& a, const Place& p, int32_t thread) {
  Cursor at = {a.workspaces + thread * a.workspace_bytes, 0};
  Workspace w = take_workspace(a, &at);
  int64_t blocks = a.key->shape[1];
  w.caches.keys = static_cast<const char*>(a.key->data) +
                  p.head * blocks * kv_key_block_bytes(w.caches.type, a.head_dim);
  w.caches.values = static_cast<const char*>(a.value->data) +
                    p.head * blocks * kv_value_block_bytes(w.caches.type, a.head_dim);
  return w;
}

inline int64_t column_of(const Attention& a, const Place& p, int64_t row) {
  return (p.head * a.group + p.first_row + row) * a.head_dim;
}

inline void clear_rows(const Sums& s, int64_t first, int64_t rows, int64_t padded) {
  for (int64_t r = first; r < first + rows; r++) {
    s.high[r] = -kInfinity;
    s.total[r] = 0;
  }
  memset(s.out + first * padded, 0, static_cast<size_t>(rows * padded) * sizeof(float));
}

// Row r of token t becomes row t * p.rows + r.
inline void load_queries(const Attention& a, const Place& p, const Workspace& w) {
  for (int64_t t = 0; t < p.tokens; t++) {
    const float* q = row<float>(*a.q, p.first_token + t);
    for (int64_t r = 0; r < p.rows; r++) {
      load_query(w.queries, w.caches.type, t * p.rows + r, q + column_of(a, p, r),
                 a.scale * kLog2E);
    }
  }
}

// Adds the sums of one segment to those of the rows [first, first + rows).
inline void merge_rows(const Sums& from, int64_t from_first, const Sums& to, int64_t first,
                       int64_t rows, int64_t padded) {
  for (int64_t r = 0; r < rows; r += kLanes) {
    int64_t n = smaller(kLanes, rows - r);
    float keep[kLanes], take[kLanes];
    V old_high = load_upto(to.high + first + r, n);
    V new_high = load_upto(from.high + from_first + r, n);
    V high = max(old_high, new_high);
    store(keep, exp2(sub(old_high, high)));
    store(take, exp2(sub(new_high, high)));
    store_upto(to.high + first + r, high, n);
    for (int64_t i = 0; i < n; i++) {
      int64_t at = first + r + i;
      int64_t source = from_first + r + i;
      if (from.total[source] == 0) continue;  // it saw nothing, and high is that of before
      to.total[at] = to.total[at] * keep[i] + from.total[source] * take[i];
      for (int64_t j = 0; j < padded; j += kLanes) {
        V kept = mul(load(to.out + at * padded + j), set(keep[i]));
        store(to.out + at * padded + j,
              fma(load(from.out + source * padded + j), set(take[i]), kept));
      }
    }
  }
}

// The keys that a walk begins with, which no block before them has fetched.
inline void fetch_first(const Attention& a, const Workspace& w) {
  const Reader& reader = w.readers[0];
  if (reader.next == reader.end) return;
  const char* keys = w.caches.key_at(item_at(a, reader.list, reader.next).block);
  int64_t bytes = kv_key_block_bytes(w.caches.type, a.head_dim);
  for (int64_t at = 0; at < bytes; at += 64) prefetch(keys + at);
}

// Sends all rows through the items [next, end) of their readers. With merge, the segments go to
// w.merged; else w.sums holds the one segment that was asked for.
inline void walk_blocks(const Attention& a, const Place& p, const Workspace& w, bool merge) {
  constexpr int64_t kNone = INT64_MAX;
  for (;;) {
    int64_t block = kNone;
    for (int64_t t = 0; t < p.tokens; t++) {
      const Reader& reader = w.readers[t];
      if (reader.next < reader.end) {
        block = smaller(block, item_at(a, reader.list, reader.next).block);
      }
    }
    if (block == kNone) return;
    int32_t rows[kRowTile];
    uint64_t masks[kRowTile];
    bool ends[kRowTile] = {};
    int64_t count = 0;
    int64_t next = kNone;
    for (int64_t t = 0; t < p.tokens; t++) {
      Reader* reader = w.readers + t;
      if (reader->next == reader->end) continue;
      Item item = item_at(a, reader->list, reader->next);
      if (item.block == block) {
        reader->next++;
        ends[t] = merge && (reader->next % kSegment == 0 || reader->next == reader->end);
        for (int64_t r = 0; r < p.rows && item.mask != 0; r++) {
          rows[count] = static_cast<int32_t>(t * p.rows + r);
          masks[count++] = item.mask;
        }
        if (reader->next == reader->end) continue;
        item = item_at(a, reader->list, reader->next);
      }
      next = smaller(next, item.block);
    }
    if (count > 0) {
      attend_block(w.queries, w.sums, {rows, count}, masks, w.caches, block,
                   next == kNone ? block : next);
    }
    for (int64_t t = 0; t < p.tokens; t++) {
      if (!ends[t]) continue;
      merge_rows(w.sums, t * p.rows, w.merged, t * p.rows, p.rows, a.padded);
      clear_rows(w.sums, t * p.rows, p.rows, a.padded);
    }
  }
}

inline void write_rows(const Attention& a, const Place& p, const Sums& sums) {
  for (int64_t t = 0; t < p.tokens; t++) {
    float* y = row<float>(*a.y, p.first_token + t);
    for (int64_t r = 0; r < p.rows; r++) {
      float total = sums.total[t * p.rows + r];
      V divisor = set(total == 0 ? 1.0f : total);  // a row with no block at all gives zeros
      const float* out = sums.out + (t * p.rows + r) * a.padded;
      float* to = y + column_of(a, p, r);
      for (int64_t j = 0; j < a.head_dim; j += kLanes) {
        store_upto(to + j, div(load(out + j), divisor), a.head_dim - j);
      }
    }
  }
}

ARK_KERNEL_END
