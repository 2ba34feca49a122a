// Sixteen outputs at a time: the vector types that every kernel is written with.
//
// Build contract. Each kernels/<operator>/cpu.cc is compiled once per instruction set with
// -DARK_ISA=<isa> -DARK_ISA_<isa>=1 (names of ark::Isa), the include folder native/src, -O3, and
// -ffp-contract=off: products and sums fuse only where fma() says so. Machine flags:
//   scalar      none
//   avx2        -mavx2 -mfma -mf16c
//   avxvnni     the same and -mavxvnni
//   avx512      -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
//   avx512vnni  the same and -mavx512vnni
//   amx         the same and -mamx-tile -mamx-int8
//   neon        none (armv8-a)
//   dotprod     -march=armv8.2-a+dotprod
//   i8mm        -march=armv8.2-a+dotprod+i8mm
// kernel_sets.cmake says which kernels a set has of its own; for others the next lower set stands
// in. Kernels call no inline function of the standard library: an object of a better instruction
// set must not define a weak symbol that the linker could pick for everybody. Everything here has
// internal linkage for the same reason. The executor gives Call::parallel.threads to scratch() too.
//
// Types (one logical vector may be several registers):
//   V  16 float        I  16 int32
//   B  64 bytes: four consecutive int8 inputs of 16 outputs
//   D  running dot products of 4-bit codes; after at most kDotLimit calls of dot_u4, sum_dot
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernel.h"

#if !defined(ARK_ISA)
#error "kernels are compiled with -DARK_ISA=<isa> and -DARK_ISA_<isa>=1"
#endif
// Instrumented code that is inlined everywhere takes minutes to compile.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ARK_INLINE inline
#else
#define ARK_INLINE inline __attribute__((always_inline))
#endif
// In front of a loop: GCC would unroll it, regroup the sums of all its turns and spill every term.
#if defined(__clang__)
#define ARK_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define ARK_ROLLED _Pragma("GCC unroll 1")
#endif
#define ARK_KERNEL_BEGIN \
  namespace ark {        \
  namespace ARK_ISA {    \
  namespace {
#define ARK_KERNEL_END \
  }                    \
  }                    \
  }

ARK_KERNEL_BEGIN
ARK_INLINE int32_t load_word(const int8_t* p) {
  int32_t word;
  memcpy(&word, p, sizeof(word));
  return word;
}
ARK_KERNEL_END

#if defined(ARK_ISA_avx2) || defined(ARK_ISA_avxvnni)
#include "simd_avx2.h"
#elif defined(ARK_ISA_avx512) || defined(ARK_ISA_avx512vnni) || defined(ARK_ISA_amx)
#include "simd_avx512.h"
#elif defined(ARK_ISA_neon) || defined(ARK_ISA_dotprod) || defined(ARK_ISA_i8mm)
#include "simd_neon.h"
#else
#include "simd_scalar.h"
#endif

ARK_KERNEL_BEGIN

constexpr int kLanes = 16;
constexpr float kInfinity = __builtin_inff();

// ---- loads of any float type ------------------------------------------------------------------

struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};

ARK_INLINE V load(const Half* p) { return load_half(&p->bits); }
ARK_INLINE V load(const BFloat* p) { return load_bfloat(&p->bits); }
ARK_INLINE void store(Half* p, V v) { store_half(&p->bits, v); }

// The first n lanes; the others are zero.
template <typename T>
ARK_INLINE V load_part(const T* p, int64_t n) {
  T lanes[kLanes] = {};
  memcpy(lanes, p, static_cast<size_t>(n) * sizeof(T));
  return load(lanes);
}
template <typename T>
ARK_INLINE void store_part(T* p, V v, int64_t n) {
  T lanes[kLanes];
  store(lanes, v);
  memcpy(p, lanes, static_cast<size_t>(n) * sizeof(T));
}
template <typename T>
ARK_INLINE V load_upto(const T* p, int64_t n) {
  return n >= kLanes ? load(p) : load_part(p, n);
}
template <typename T>
ARK_INLINE void store_upto(T* p, V v, int64_t n) {
  if (n >= kLanes) {
    store(p, v);
  } else {
    store_part(p, v, n);
  }
}
// One value through the vector conversion, so that scalars round as vectors do.
template <typename T>
ARK_INLINE float load_one(const T* p) {
  float lanes[kLanes];
  store(lanes, load_part(p, 1));
  return lanes[0];
}

// ---- functions --------------------------------------------------------------------------------

// exp, to about 1e-7 relative; arguments are clamped to [-87.3, 88].
ARK_INLINE V exp(V x) {
  x = min(max(x, set(-87.3f)), set(88.0f));
  I n = round_to_int(mul(x, set(1.44269504f)));
  V whole = to_float(n);
  // ln 2 in two parts: the first has few enough bits for an exact product.
  V r = fma(whole, set(-0.693359375f), x);
  r = fma(whole, set(2.12194440e-4f), r);
  V p = set(1.0f / 5040.0f);
  p = fma(p, r, set(1.0f / 720.0f));
  p = fma(p, r, set(1.0f / 120.0f));
  p = fma(p, r, set(1.0f / 24.0f));
  p = fma(p, r, set(1.0f / 6.0f));
  p = fma(p, r, set(0.5f));
  p = fma(p, r, set(1.0f));
  p = fma(p, r, set(1.0f));
  return mul(p, as_float(shl<23>(add(n, iset(127)))));
}

constexpr float kLog2E = 1.44269504f;

// 2^x for x < 127, to about 2e-7 relative; what is below 2^-125 becomes that.
ARK_INLINE V exp2(V x) {
  x = max(x, set(-125.0f));
  // Adding 1.5 * 2^23 leaves the nearest whole number in the lowest bits.
  V magic = set(12582912.0f);
  V shifted = add(x, magic);
  V r = sub(x, sub(shifted, magic));
  V p = set(1.32647273e-3f);
  p = fma(p, r, set(9.67151299e-3f));
  p = fma(p, r, set(5.55073358e-2f));
  p = fma(p, r, set(2.40222424e-1f));
  p = fma(p, r, set(6.93147004e-1f));
  p = fma(p, r, set(1.0f));
  return as_float(add(as_int(p), shl<23>(as_int(shifted))));
}

// Natural logarithm of normal positive numbers, to about 2e-7 absolute near 1, else relative.
ARK_INLINE V log(V x) {
  I bits = as_int(x);
  // The exponent is taken so that the mantissa lies in [sqrt(1/2), sqrt(2)).
  I shifted = sub(bits, iset(0x3f3504f3));
  I exponent = sar<23>(shifted);
  V m = as_float(sub(bits, shl<23>(exponent)));
  V t = div(sub(m, set(1.0f)), add(m, set(1.0f)));
  V t2 = mul(t, t);
  V p = set(2.0f / 9.0f);
  p = fma(p, t2, set(2.0f / 7.0f));
  p = fma(p, t2, set(2.0f / 5.0f));
  p = fma(p, t2, set(2.0f / 3.0f));
  p = fma(p, t2, set(2.0f));
  return fma(to_float(exponent), set(0.693147181f), mul(p, t));
}

ARK_INLINE float exp2_one(float x) {
  float lanes[kLanes];
  store(lanes, exp2(set(x)));
  return lanes[0];
}
ARK_INLINE float log_one(float x) {
  float lanes[kLanes];
  store(lanes, log(set(x)));
  return lanes[0];
}

ARK_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
ARK_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
// Sizes inside scratch are kept at whole cache lines.
ARK_INLINE int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
ARK_INLINE int64_t quotient_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }

ARK_KERNEL_END
