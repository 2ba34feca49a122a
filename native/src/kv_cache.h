// What the runtime itself does to KV caches, in the layouts of docs/bundle.md: moving a token after
// a draft was accepted, and filling caches for benchmarks.
#pragma once

#include <cstdint>

#include "plan.h"

namespace ark {

// A key or value cache as allocated.
struct CacheStore {
  char* data;
  CacheKind kind;  // key or value
  DType dtype;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t blocks;  // of 64 tokens

  int64_t block_bytes() const;
  char* block(int64_t head, int64_t index) const {
    return data + (head * blocks + index) * block_bytes();
  }
};

// Copies the keys or values of one token, with their scales, to another place.
void copy_token(const CacheStore& cache, int64_t from, int64_t to);

// Fills one block of one head with pseudo-random numbers, of zero mean and a root mean square near
// 1, that depend on the stream alone.
void fill_block(const CacheStore& cache, int64_t head, int64_t index, uint64_t stream);

}  // namespace ark
