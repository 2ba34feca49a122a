// Which tokens of which blocks of the caches a token of the call attends to.
#pragma once

#include "kernel_check.h"
#include "softmax.h"

ARK_KERNEL_BEGIN

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
  int64_t padded;       // head_dim rounded up to whole vectors
  int64_t most;         // blocks that a row of chosen can hold
  int64_t tile_rows;    // query heads of a token per tile
  int64_t tile_tokens;  // more than one only when tile_rows are all of its heads
  int64_t tiles;        // per kv head
  int64_t segments;     // 0: a tile runs all its segments by itself
  char* workspaces;     // one per thread
  int64_t workspace_bytes;
  float* partials;  // [kv_heads * tiles][segments][rows of a tile][kLanes + padded]
};

// A list of items: in memory, or when dense, all causal blocks.
struct BlockList {
  bool dense;
  int64_t token;
  int64_t count;
  const Item* items;
};

// Slots of the draft tokens in bits that lie in a block, as its mask.
inline uint64_t draft_slots(int64_t past, int64_t block, uint64_t bits) {
  int64_t shift = past - block * kBlock;
  if (shift >= kBlock || shift <= -kBlock) return 0;
  return shift >= 0 ? bits << shift : bits >> -shift;
}

inline uint64_t dense_mask(const Call& call, int64_t token, int64_t block) {
  if (!call.ancestors) return first_bits(call.past + token + 1 - block * kBlock);
  return first_bits(call.past - block * kBlock) |
         draft_slots(call.past, block, call.ancestors[token]);
}

// The blocks that hold all that a token can see.
inline int64_t dense_count(const Attention& a, int64_t token) {
  const Call& call = *a.call;
  int64_t last = token;
  if (call.ancestors)
    last = call.ancestors[token] ? 63 - __builtin_clzll(call.ancestors[token]) : 0;
  return smaller((call.past + last) / kBlock + 1, a.key->shape[1]);
}

inline const int32_t* chosen_blocks(const Attention& a, int64_t head, int64_t token) {
  return row<int32_t>(*a.chosen, token) + head * (1 + a.most);
}

// What chosen_list can hold: the chosen blocks, and two that only draft tokens lie in.
inline int64_t list_capacity(const Attention& a) { return a.chosen ? a.most + 2 : 0; }

inline void add_item(Item* items, int64_t* count, int64_t block, uint64_t mask) {
  if (*count > 0 && items[*count - 1].block == block) {
    items[*count - 1].mask |= mask;
  } else {
    items[(*count)++] = {block, mask};
  }
}

// The draft tokens that a token sees and whose positions lie in one of its chosen blocks.
inline uint64_t chosen_drafts(const Attention& a, int64_t token, int64_t id) {
  const Call& call = *a.call;
  uint64_t kept = 0;
  for (uint64_t left = call.ancestors[token]; left; left &= left - 1) {
    int64_t other = __builtin_ctzll(left);
    if (position_of(call, other) / a.block_size == id) kept |= uint64_t{1} << other;
  }
  return kept;
}

// Entries are taken for what they are worth: ids outside the causal blocks are dropped. A draft
// token lies in the slots after past but is chosen by its position in the sequence.
inline BlockList list_blocks(const Attention& a, int64_t head, int64_t token, Item* items) {
  const int32_t* entries = a.chosen ? chosen_blocks(a, head, token) : nullptr;
  if (!entries || entries[0] < 0) return {true, token, dense_count(a, token), nullptr};
  const Call& call = *a.call;
  int64_t position = smaller(position_of(call, token), a.key->shape[1] * kBlock - 1);
  int64_t slots = call.ancestors ? call.past : position + 1;
  uint64_t drafts = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < smaller(entries[0], a.most); i++) {
    int64_t id = entries[1 + i];
    if (id < 0 || id > position / a.block_size) continue;
    int64_t block = id * a.block_size / kBlock;
    uint64_t mask = first_bits(a.block_size) << (id * a.block_size % kBlock);
    mask &= first_bits(slots - block * kBlock);
    if (mask) add_item(items, &count, block, mask);
    if (call.ancestors && (id + 1) * a.block_size > call.past) {
      drafts |= chosen_drafts(a, token, id);
    }
  }
  if (drafts) {
    for (int64_t block = call.past / kBlock; block <= (call.past + 63) / kBlock; block++) {
      uint64_t mask = draft_slots(call.past, block, drafts);
      if (mask && block < a.key->shape[1]) add_item(items, &count, block, mask);
    }
  }
  return {false, token, count, items};
}

inline Item item_at(const Attention& a, const BlockList& list, int64_t i) {
  return list.dense ? Item{i, dense_mask(*a.call, list.token, i)} : list.items[i];
}

// At most how many items the list of a token has.
inline int64_t count_bound(const Attention& a, int64_t head, int64_t token) {
  if (a.chosen) {
    int64_t count = chosen_blocks(a, head, token)[0];
    if (count >= 0) return smaller(count, a.most) + (a.call->ancestors ? 2 : 0);
  }
  return dense_count(a, token);
}

ARK_KERNEL_END
