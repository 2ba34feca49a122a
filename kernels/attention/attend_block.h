// Attention of query rows to one block of 64 cached tokens.
#pragma once

#include "gather_block.h"
#include "kv_quantize.h"
#include "read_u4.h"

ARK_KERNEL_BEGIN

// The caches of one kv head, and room for a block that cannot be used as it lies there.
struct Caches {
  DType type;
  int64_t head_dim;
  int64_t padded;  // head_dim rounded up to whole vectors
  const char* keys;
  const char* values;
  float* key_block;    // u4: [head_dim][64]
  float* value_block;  // u4, or head_dim of no whole vectors: [64][padded]

  const char* key_at(int64_t block) const {
    return keys + block * kv_key_block_bytes(type, head_dim);
  }
  const char* value_at(int64_t block) const {
    return values + block * kv_value_block_bytes(type, head_dim);
  }
};

inline void gather_block(const Sums& sums, const float* weights, const RowList& list,
                         const Caches& caches, const char* values, int64_t tokens, Ahead* ahead) {
  int64_t d = caches.head_dim;
  int64_t padded = caches.padded;
  if (caches.type == DType::i8) return gather_codes(sums, list, values, padded, ahead);
  const float* floats = reinterpret_cast<const float*>(values);
  const Half* halves = reinterpret_cast<const Half*>(values);
  if (d == padded && caches.type == DType::f16) {
    return gather_floats(sums, weights, list, halves, d, tokens, padded, ahead);
  }
  if (d == padded && caches.type == DType::f32) {
    return gather_floats(sums, weights, list, floats, d, tokens, padded, ahead);
  }
  float* converted = caches.value_block;
  if (caches.type == DType::u4) {
    read_values_u4(values, tokens, d, padded, converted);
  } else if (caches.type == DType::f16) {
    pad_values(halves, tokens, d, padded, converted);
  } else {
    pad_values(floats, tokens, d, padded, converted);
  }
  gather_floats(sums, weights, list, static_cast<const float*>(converted), padded, tokens, padded,
                ahead);
}

// masks[i]: the tokens of the block that row i of the list sees, at least one. next: the block that
// comes after this one.
inline void attend_block(const Queries& queries, const Sums& sums, const RowList& list,
                         const uint64_t* masks, const Caches& caches, int64_t block, int64_t next) {
  const char* keys = caches.key_at(block);
  const char* values = caches.value_at(block);
  DType type = caches.type;
  int64_t value_bytes = kv_value_block_bytes(type, caches.head_dim);
  Ahead ahead = fetch_over(values, value_bytes, score_turns(list.count, caches.head_dim, type));
  if (type == DType::u4) {
    read_keys_u4(keys, caches.head_dim, caches.key_block);
    score_block(queries, list, caches.key_block, DType::f32, &ahead);
  } else {
    score_block(queries, list, keys, type, &ahead);
  }
  const char* scales = values + value_bytes - kBlock * 4;
  weigh_rows(sums, queries.scores, list, masks,
             type == DType::i8 ? reinterpret_cast<const float*>(scales) : nullptr);
  uint64_t seen = 0;
  for (int64_t i = 0; i < list.count; i++) seen |= masks[i];
  int64_t tokens = 64 - __builtin_clzll(seen);
  ahead = fetch_over(caches.key_at(next), kv_key_block_bytes(type, caches.head_dim),
                     gather_turns(list.count, caches.padded, tokens, type));
  gather_block(sums, queries.scores, list, caches, values, tokens, &ahead);
}

ARK_KERNEL_END
