// The instructions that CUDA C++ has no words for, from sm_80 on. Halves are kept two to a word,
// the first in the low half. Tests put others of the same names in their place, which a CPU runs.
#pragma once

#ifndef ARK_CUDA_ON_CPU

#include <cstdint>

namespace ark {

/// Two floats to halves; beyond the largest half, to that.
__device__ __forceinline__ uint32_t half2_of(float first, float second) {
  uint32_t word;
  asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  return word;
}
__device__ __forceinline__ float low_half(uint32_t word) {
  float value;
  asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l;}" : "=f"(value) : "r"(word));
  return value;
}
__device__ __forceinline__ float high_half(uint32_t word) {
  float value;
  asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h;}" : "=f"(value) : "r"(word));
  return value;
}

__device__ __forceinline__ uint32_t half2_fma(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t word;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(word) : "r"(a), "r"(b), "r"(c));
  return word;
}
__device__ __forceinline__ uint32_t half2_sub(uint32_t a, uint32_t b) {
  uint32_t word;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(word) : "r"(a), "r"(b));
  return word;
}
__device__ __forceinline__ uint32_t half2_mul(uint32_t a, uint32_t b) {
  uint32_t word;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(word) : "r"(a), "r"(b));
  return word;
}

/// Bytes of a (0-3) and b (4-7), one for each of the four low digits of ``order``.
__device__ __forceinline__ uint32_t permute(uint32_t a, uint32_t b, uint32_t order) {
  return __byte_perm(a, b, order);
}

/// ``(a & mask) | other`` in one instruction; of two constants the compiler makes two.
__device__ __forceinline__ uint32_t and_or(uint32_t a, uint32_t mask, uint32_t other) {
  uint32_t word;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(word) : "r"(a), "r"(mask), "r"(other));
  return word;
}

__device__ __forceinline__ float exp2_fast(float x) {
  float value;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
  return value;
}
__device__ __forceinline__ float log2_fast(float x) {
  float value;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
  return value;
}

/// A number that the compiler does not know.
__device__ __forceinline__ int unknown(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

/// 16 bytes that nobody reads again soon: they need not push others out of the first cache.
__device__ __forceinline__ uint4 load_once(const uint4* at) {
  uint4 words;
  asm("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
      : "l"(at));
  return words;
}

/// Begins to copy 16 bytes to shared memory; zeros where they are not wanted.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool wanted) {
  const auto target = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
               :
               : "r"(target), "l"(from), "r"(wanted ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void copies_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Waits for this thread's copies, but for those of the last ``kGroups`` commits.
template <int kGroups>
__device__ __forceinline__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

__device__ __forceinline__ void warp_sync() { __syncwarp(); }

template <class T>
__device__ __forceinline__ T from_lane_xor(T value, int mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, value, mask);
}
template <class T>
__device__ __forceinline__ T from_lane(T value, int index) {
  return __shfl_sync(0xFFFFFFFFu, value, index);
}
__device__ __forceinline__ uint32_t ballot(bool mine) { return __ballot_sync(0xFFFFFFFFu, mine); }

/// ldmatrix.x4: lane i gives row i % 8 of matrix i / 8, 8 halves in shared memory.
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const void* row) {
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}
/// The same, each matrix transposed.
__device__ __forceinline__ void load_matrices_turned(uint32_t (&to)[4], const void* row) {
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}

/// sums += a b: [16, 16] by [16, 8], halves to float32 (mma.sync.m16n8k16).
///
/// With g = lane / 4 and t = lane % 4: a holds (row g, columns 2t, 2t+1), (g+8, same), (g, +8),
/// (g+8, +8); b holds (rows 2t, 2t+1 of column g) and (+8); sums holds (row g, columns 2t, 2t+1)
/// and (g+8, same).
__device__ __forceinline__ void multiply(float (&sums)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace ark

#endif
