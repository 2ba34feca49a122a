// The contract between the plan executor and the kernels in kernels/<operator>/cpu.cc.
//
// A kernel is a row in a table: its name, the names of its operands and attributes in
// the order it wants them, and three functions. It holds no state.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ark {

enum class DType : int32_t { f32 = 0, f16 = 1, bf16 = 2, i32 = 3, u8 = 4, i8 = 5, u4 = 6, u2 = 7 };

// Ordered from worst to best within one architecture. The numbers are stored nowhere.
enum class Isa : int32_t {
  scalar = 0,
  avx2 = 1,
  avxvnni = 2,
  avx512 = 3,
  avx512vnni = 4,
  amx = 5,
  neon = 16,
  dotprod = 17,
  i8mm = 18
};

struct Operand {
  void* data;        // nullptr: an absent optional operand
  int64_t shape[4];  // unused dimensions are 1
  int64_t stride;    // elements between rows of a rank-2 operand (a view may be narrower)
  int32_t rank;
  DType dtype;
};

// Runs body(user, index) for index in [0, count) on the pool, in any order, and waits.
struct Parallel {
  void* pool;
  int32_t threads;
  void (*run)(void* pool, int64_t count, void (*body)(void* user, int64_t index, int32_t thread),
              void* user);
};

struct Call {
  const Operand* operands;   // in the kernel's own order
  const double* attributes;  // in the kernel's own order
  int64_t tokens;            // tokens in this step (rows of "tokens" operands)
  int64_t past;              // tokens already in the caches
  int64_t total;  // tokens in the sequence once the whole append (all its chunks) is done
  // A tree of at most 64 draft tokens: bit j of ancestors[i] is set when token i sees token j of
  // this call (itself included), and depths[i] is its position after past. Null: each sees all
  // before it.
  const uint64_t* ancestors;
  const int32_t* depths;
  Parallel parallel;
  char* scratch;  // 64-byte aligned, of the size that scratch() returned
};

// Operand names carry meaning. Weights, which are packed and mapped read-only, may be bound to
// "codes", "scales", "offsets", "weight", "norm", "short" and "long" and to nothing else. "ids" are
// token ids below the rows of codes; "blocks" are what select_blocks wrote with the same
// block_size. A trace shows "y", or without one "x". In check() and scratch(), total is the caches'
// capacity in tokens.
struct KernelEntry {
  const char* name;
  Isa isa;
  const char* const* operands;    // null-terminated; a leading '?' marks an optional one
  const char* const* attributes;  // null-terminated; "name=default" gives a default
  // Null when the call is sound for every tokens in [1, call.tokens] and past up to the caches'
  // capacity, else what is wrong. Called once at load: run() may trust what check() accepted.
  const char* (*check)(const Call&);
  // Bytes of scratch for this call, at most; called at load with the largest tokens.
  size_t (*scratch)(const Call&);
  void (*run)(const Call&);
};

// Each kernels/<operator>/cpu.cc registers itself once per instruction set that it is built for.
struct KernelRegistrar {
  explicit KernelRegistrar(const KernelEntry& entry);
};
// The best variant of a kernel that is no better than isa and that this CPU runs; nullptr when
// there is none. Not every set has every kernel (CMakeLists.txt lists what each adds).
const KernelEntry* find_kernel(const char* name, Isa isa);
// The kernel of a place in the table; nullptr behind the last.
const KernelEntry* kernel_at(int index);

}  // namespace ark
