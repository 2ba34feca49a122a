// The instructions of kernels/common/instructions.cuh, by exchange between the lanes of a warp.
#pragma once

#include "halves.h"

namespace ark {

__device__ __forceinline__ uint32_t half2_of(float first, float second) {
  const auto bounded = [](float x) { return x > 65504 ? 65504 : x < -65504 ? -65504 : x; };
  return cuda_on_cpu::both(bounded(first), bounded(second));
}
__device__ __forceinline__ float low_half(uint32_t word) { return cuda_on_cpu::low(word); }
__device__ __forceinline__ float high_half(uint32_t word) { return cuda_on_cpu::high(word); }

__device__ __forceinline__ uint32_t half2_fma(uint32_t a, uint32_t b, uint32_t c) {
  using cuda_on_cpu::high, cuda_on_cpu::low;
  // A product of halves is exact in double.
  return cuda_on_cpu::both(static_cast<double>(low(a)) * low(b) + low(c),
                           static_cast<double>(high(a)) * high(b) + high(c));
}
__device__ __forceinline__ uint32_t half2_sub(uint32_t a, uint32_t b) {
  using cuda_on_cpu::high, cuda_on_cpu::low;
  return cuda_on_cpu::both(static_cast<double>(low(a)) - low(b),
                           static_cast<double>(high(a)) - high(b));
}
__device__ __forceinline__ uint32_t half2_mul(uint32_t a, uint32_t b) {
  using cuda_on_cpu::high, cuda_on_cpu::low;
  return cuda_on_cpu::both(static_cast<double>(low(a)) * low(b),
                           static_cast<double>(high(a)) * high(b));
}

/// Bytes of a (0-3) and b (4-7), one for each of the four low digits of ``order``.
__device__ __forceinline__ uint32_t permute(uint32_t a, uint32_t b, uint32_t order) {
  const uint64_t all = static_cast<uint64_t>(b) << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i)
    result |= static_cast<uint32_t>(all >> 8 * (order >> 4 * i & 7) & 255) << 8 * i;
  return result;
}
__device__ __forceinline__ uint32_t and_or(uint32_t a, uint32_t mask, uint32_t other) {
  return (a & mask) | other;
}

__device__ __forceinline__ float exp2_fast(float x) { return std::exp2(x); }
__device__ __forceinline__ float log2_fast(float x) { return std::log2(x); }

__device__ __forceinline__ int unknown(int value) { return value; }

__device__ __forceinline__ uint4 load_once(const uint4* at) { return *at; }

__device__ __forceinline__ void copy_async(void* to, const void* from, bool wanted) {
  const auto bits = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from);
  if (bits % 16 != 0) cuda_on_cpu::fail("cp.async of an address that 16 does not divide");
  auto& groups = cuda_on_cpu::lane().copies;
  if (groups.empty()) groups.emplace_back();
  groups.back().push_back({to, from, !wanted});
}
__device__ __forceinline__ void copies_commit() {
  auto& groups = cuda_on_cpu::lane().copies;
  if (groups.empty()) groups.emplace_back();
  groups.emplace_back();
}
template <int kGroups>
__device__ __forceinline__ void copies_wait() {
  cuda_on_cpu::finish_copies(kGroups);
}

__device__ __forceinline__ void warp_sync() { cuda_on_cpu::exchange(0, "__syncwarp"); }

template <class T>
__device__ __forceinline__ T from_lane_xor(T value, int mask) {
  const unsigned own = threadIdx.x % 32;
  return cuda_on_cpu::exchange(value, "shfl.xor")[own ^ mask];
}
template <class T>
__device__ __forceinline__ T from_lane(T value, int index) {
  return cuda_on_cpu::exchange(value, "shfl")[index];
}
__device__ __forceinline__ uint32_t ballot(bool mine) {
  const auto given = cuda_on_cpu::exchange(mine, "ballot");
  uint32_t bits = 0;
  for (unsigned i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(given[i]) << i;
  return bits;
}

namespace emulated {

template <bool kTurned>
__device__ void load_matrices(uint32_t (&to)[4], const void* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
    cuda_on_cpu::fail("ldmatrix of an address that 16 does not divide");
  const unsigned own = threadIdx.x % 32;
  const auto rows = cuda_on_cpu::exchange(static_cast<const uint16_t*>(row), "ldmatrix");
  // The 32 banks hold 128 bytes: eight rows are read at once if they lie in different 16 of them.
  for (unsigned i = 0; i < 4; ++i) {
    unsigned banks = 0;
    for (unsigned r = 0; r < 8; ++r)
      banks |= 1u << reinterpret_cast<uintptr_t>(rows[8 * i + r]) / 16 % 8;
    if (banks != 255) cuda_on_cpu::fail("the rows of ldmatrix share banks");
  }
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned across = own / 4, along = own % 4 * 2;
    const auto at = [&](unsigned r, unsigned c) { return rows[8 * i + r][c]; };
    const uint32_t first = kTurned ? at(along, across) : at(across, along);
    const uint32_t second = kTurned ? at(along + 1, across) : at(across, along + 1);
    to[i] = first | second << 16;
  }
  // The rows are shared memory, which another lane must not overwrite before all have read.
  cuda_on_cpu::exchange(0, "end of ldmatrix");
}

}  // namespace emulated

__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const void* row) {
  emulated::load_matrices<false>(to, row);
}
__device__ __forceinline__ void load_matrices_turned(uint32_t (&to)[4], const void* row) {
  emulated::load_matrices<true>(to, row);
}

/// mma.sync.m16n8k16, fragments as PTX has them.
__device__ __forceinline__ void multiply(float (&sums)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2]) {
  struct Fragments {
    uint32_t a[4], b[2];
  };
  const auto given =
      cuda_on_cpu::exchange(Fragments{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, "mma");
  const unsigned own = threadIdx.x % 32;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = own / 4 + i / 2 * 8, column = own % 4 * 2 + i % 2;
    float sum = sums[i];
    for (unsigned k = 0; k < 16; k += 2) {
      const unsigned lane_k = k % 8 / 2;
      const uint32_t left = given[row % 8 * 4 + lane_k].a[row / 8 + k / 8 * 2];
      const uint32_t right = given[column * 4 + lane_k].b[k / 8];
      sum += cuda_on_cpu::low(left) * cuda_on_cpu::low(right);
      sum += cuda_on_cpu::high(left) * cuda_on_cpu::high(right);
    }
    sums[i] = sum;
  }
}

}  // namespace ark
