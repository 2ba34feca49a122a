// Sizes of the caches' blocks of 64 tokens (docs/bundle.md), for the runtime and for kernels.
#pragma once

#include "kernel.h"

namespace ark {

constexpr int64_t kKvBlock = 64;  // tokens
constexpr int64_t kKvGroup = 32;  // dimensions that share a scale and a minimum in 4-bit caches

// Functions have internal linkage: an object of a better instruction set must not provide them for
// everybody.
static inline int64_t kv_padded(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Bytes of 64 keys, or compressed keys, of one head.
static inline int64_t kv_key_block_bytes(DType type, int64_t head_dim) {
  if (type == DType::i8) return kKvBlock * (kv_padded(head_dim, 4) + 4);
  if (type == DType::u4) {
    int64_t groups = kv_padded(head_dim, kKvGroup) / kKvGroup;
    return kKvBlock * (groups * kKvGroup / 2 + groups * 4);
  }
  return kKvBlock * head_dim * (type == DType::f16 ? 2 : 4);
}

// Bytes of 64 values of one head.
static inline int64_t kv_value_block_bytes(DType type, int64_t head_dim) {
  if (type == DType::i8) return kKvBlock * (kv_padded(head_dim, 16) + 4);
  return kv_key_block_bytes(type, head_dim);
}

}  // namespace ark
