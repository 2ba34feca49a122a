// What check() functions share: operands come from a plan that may be hostile.
#pragma once

#include "simd.h"

ARK_KERNEL_BEGIN

// No dimension of a model comes near; products of two stay far from overflow.
constexpr int64_t kMostElements = int64_t{1} << 31;

inline bool is_present(const Operand& o) { return o.data != nullptr; }

inline bool is_half_or_float(DType type) { return type == DType::f16 || type == DType::f32; }

// A buffer with a row for each token, of a 32-bit type.
inline bool is_rows(const Operand& o, const Call& call, DType type) {
  return is_present(o) && o.rank == 2 && o.dtype == type && o.shape[0] >= call.tokens &&
         o.shape[1] >= 1 && o.shape[1] < kMostElements && o.stride >= o.shape[1] &&
         o.stride < kMostElements;
}

inline bool is_cache_type(DType type) {
  return is_half_or_float(type) || type == DType::i8 || type == DType::u4;
}

inline bool is_float_rows(const Operand& o, const Call& call) {
  return is_rows(o, call, DType::f32);
}

inline bool is_float_vector(const Operand& o, int64_t n) {
  return is_present(o) && o.rank == 1 && o.dtype == DType::f32 && o.shape[0] == n;
}

// [kv_heads, blocks, head_dim, 64] of fp32, fp16, int8 or 4-bit codes (kv_layout.h).
inline bool is_key_cache(const Operand& o) {
  if (o.rank != 4 || !is_cache_type(o.dtype) || o.shape[3] != 64) return false;
  for (int i = 0; i < 3; i++) {
    if (o.shape[i] < (i == 1 ? 0 : 1) || o.shape[i] >= kMostElements) return false;
  }
  return is_present(o) || o.shape[1] == 0;
}

// [kv_heads, blocks * 64, head_dim] beside a key cache of the same capacity and type.
inline bool is_value_cache(const Operand& o, const Operand& key) {
  return is_present(o) && o.rank == 3 && o.dtype == key.dtype && o.shape[0] == key.shape[0] &&
         o.shape[1] == key.shape[1] * 64 && o.shape[2] == key.shape[2];
}

inline bool is_integer(double value, int64_t low, int64_t high) {
  return value >= static_cast<double>(low) && value <= static_cast<double>(high) &&
         value == static_cast<double>(static_cast<int64_t>(value));
}

inline bool is_finite(double value) { return value - value == 0; }

// The block_size of sparse attention: a divisor of the caches' 64.
inline bool is_block_size(double value) {
  return is_integer(value, 1, 64) && 64 % static_cast<int64_t>(value) == 0;
}

// Runs body(user, index, thread) without the pool when there is one item.
inline void run_parallel(const Call& call, int64_t count, void (*body)(void*, int64_t, int32_t),
                         void* user) {
  if (count == 1) {
    body(user, 0, 0);
  } else {
    call.parallel.run(call.parallel.pool, count, body, user);
  }
}

// Hands out parts of the scratch in whole cache lines; without a base it only counts.
struct Cursor {
  char* base;
  int64_t used;

  template <typename T>
  T* take(int64_t n) {
    char* at = base ? base + used : nullptr;
    used += round_up(n * static_cast<int64_t>(sizeof(T)), 64);
    return reinterpret_cast<T*>(at);
  }
};

// The position of a token of the call in its sequence; its cache slot is past + token.
inline int64_t position_of(const Call& call, int64_t token) {
  return call.past + (call.depths ? call.depths[token] : token);
}

template <typename T>
inline T* row(const Operand& o, int64_t index) {
  return static_cast<T*>(o.data) + index * o.stride;
}

ARK_KERNEL_END

// The end of every cpu.cc: its row in the table of kernels.
#define ARK_REGISTER(name, operands, attributes, check, scratch, run)                        \
  ARK_KERNEL_BEGIN                                                                           \
  const KernelEntry entry = {name, Isa::ARK_ISA, operands, attributes, check, scratch, run}; \
  const KernelRegistrar registrar(entry);                                                    \
  ARK_KERNEL_END
