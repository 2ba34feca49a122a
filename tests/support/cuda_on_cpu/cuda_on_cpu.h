// CUDA C++ as C++17 for a CPU, for tests: put in front of a .cu file with -include.
//
// The threads of a block are fibers of one thread of the CPU, and run one after the other up to the
// next meeting point. The order is the caller's, so that a kernel that forgets one gives different
// results in different orders. Copies of cp.async land when they are waited for, and no earlier.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#define ARK_CUDA_ON_CPU 1

// Shared memory lies in one section, so that each block begins with NaN in all of it.
#define __shared__ static __attribute__((section("cuda_shared")))
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__ __restrict

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
using uint = unsigned int;
using uchar = unsigned char;
using ushort = unsigned short;

inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace cuda_on_cpu {

constexpr unsigned kWarp = 32;
constexpr size_t kStack = 128 << 10;
constexpr size_t kSlot = 64;

enum class Meeting { none, block, warp };

struct Copy {
  void* to;
  const void* from;
  bool zero;
};

struct Lane {
  ucontext_t start;
  std::jmp_buf point;
  bool started = false, done = false;
  Meeting waits = Meeting::none;
  const char* what = nullptr;  // the collective that it waits in
  unsigned phase = 0;          // of its warp's meetings
  std::vector<std::vector<Copy>> copies;
};

struct Warp {
  alignas(16) unsigned char slots[2][kWarp][kSlot];
};

struct Block {
  std::vector<Lane> lanes;
  std::vector<Warp> warps;
  std::vector<unsigned char> stacks;
  std::jmp_buf scheduler;
  unsigned now = 0;
  const char* error = nullptr;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
};

inline Block block;
inline dim3 thread_index, block_index, block_size, grid_size;

extern "C" unsigned char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern "C" unsigned char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));

inline Lane& lane() { return block.lanes[block.now]; }

/// Back to the scheduler, until it resumes this lane.
inline void leave() {
  if (_setjmp(lane().point) == 0) _longjmp(block.scheduler, 1);
}

/// Ends the launch with a message.
[[noreturn]] inline void fail(const char* message) {
  block.error = message;
  _longjmp(block.scheduler, 1);
}

inline void meet(Meeting where, const char* what) {
  lane().waits = where;
  lane().what = what;
  leave();
}

inline void finish_copies(size_t groups_left) {
  auto& groups = lane().copies;
  const size_t count = groups.empty() ? 0 : groups.size() - 1;  // the last is still open
  for (size_t i = 0; i + groups_left < count; ++i) {
    for (const Copy& copy : groups.front()) {
      if (copy.zero)
        std::memset(copy.to, 0, 16);
      else
        std::memcpy(copy.to, copy.from, 16);
    }
    groups.erase(groups.begin());
  }
}

inline void start_lane() {
  block.body(block.argument);
  lane().done = true;
  _longjmp(block.scheduler, 1);
}

inline void resume(unsigned index) {
  block.now = index;
  thread_index = {index, 0, 0};
  Lane& self = block.lanes[index];
  if (_setjmp(block.scheduler) != 0) return;
  if (self.started) _longjmp(self.point, 1);
  self.started = true;
  getcontext(&self.start);
  self.start.uc_stack.ss_sp = block.stacks.data() + index * kStack;
  self.start.uc_stack.ss_size = kStack;
  self.start.uc_link = nullptr;
  makecontext(&self.start, start_lane, 0);
  setcontext(&self.start);
}

/// Lets go the lanes [first, last) if all of them wait in one meeting of this kind.
inline bool release(unsigned first, unsigned last, Meeting where) {
  unsigned waiting = 0, done = 0;
  for (unsigned i = first; i < last; ++i) {
    waiting += block.lanes[i].waits == where;
    done += block.lanes[i].done;
  }
  if (waiting == 0 || waiting + done < last - first) return false;
  if (where == Meeting::warp && done != 0) {
    block.error = "a warp meets after some of its lanes have ended";
    return false;
  }
  for (unsigned i = first; i < last; ++i) {
    Lane& one = block.lanes[i];
    if (!one.done && where == Meeting::warp && one.what != block.lanes[first].what) {
      block.error = "the lanes of a warp meet in different collectives";
      return false;
    }
    one.waits = Meeting::none;
  }
  return true;
}

inline void run_block(bool backwards) {
  const unsigned count = block_size.x;
  if (__start_cuda_shared != nullptr)
    std::memset(__start_cuda_shared, 0xFF, __stop_cuda_shared - __start_cuda_shared);
  block.lanes = std::vector<Lane>(count);
  block.warps.resize(count / kWarp);
  for (;;) {
    bool any = false, all_done = true;
    for (unsigned i = 0; i < count; ++i) {
      const unsigned index = backwards ? count - 1 - i : i;
      Lane& one = block.lanes[index];
      if (!one.done && one.waits == Meeting::none) {
        resume(index);
        any = true;
      }
      if (block.error != nullptr) return;
      all_done = all_done && one.done;
    }
    if (all_done) return;
    for (unsigned w = 0; w < count / kWarp; ++w)
      any = release(w * kWarp, (w + 1) * kWarp, Meeting::warp) || any;
    any = release(0, count, Meeting::block) || any;
    if (!any && block.error == nullptr) block.error = "some threads wait for others for ever";
    if (block.error != nullptr) return;
  }
}

/// Runs a grid, block after block; returns what went wrong, or null.
inline const char* run_grid(const unsigned grid[3], unsigned lanes, bool backwards) {
  if (lanes == 0 || lanes % kWarp != 0) return "blocks are not whole warps";
  block.stacks.resize(lanes * kStack);
  block.error = nullptr;
  block_size = {lanes, 1, 1};
  grid_size = {grid[0], grid[1], grid[2]};
  for (unsigned z = 0; z < grid[2]; ++z)
    for (unsigned y = 0; y < grid[1]; ++y)
      for (unsigned x = 0; x < grid[0]; ++x) {
        block_index = {x, y, z};
        run_block(backwards);
        if (block.error != nullptr) return block.error;
      }
  return nullptr;
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** params, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<A>*>(params[I])...);
}

/// Launches with parameters as cuLaunchKernel takes them: addresses of the arguments.
template <class... A>
const char* launch(void (*kernel)(A...), const unsigned grid[3], unsigned lanes, bool backwards,
                   void** params) {
  struct Call {
    void (*kernel)(A...);
    void** params;
  } made{kernel, params};
  block.argument = &made;
  block.body = [](void* at) {
    auto* one = static_cast<Call*>(at);
    call(one->kernel, one->params, std::index_sequence_for<A...>{});
  };
  return run_grid(grid, lanes, backwards);
}

/// What every lane of the warp gave to the same collective.
template <class T>
struct Given {
  const unsigned char* slots;
  const T& operator[](unsigned index) const {
    return *reinterpret_cast<const T*>(slots + index * kSlot);
  }
};

template <class T>
Given<T> exchange(const T& mine, const char* what) {
  static_assert(sizeof(T) <= kSlot, "too large to exchange");
  const unsigned own = block.now % kWarp;
  Warp& warp = block.warps[block.now / kWarp];
  // Two sets of slots: a lane can be one meeting ahead of a lane that still reads, not two.
  const unsigned phase = lane().phase++ % 2;
  std::memcpy(warp.slots[phase][own], &mine, sizeof(T));
  meet(Meeting::warp, what);
  return {&warp.slots[phase][0][0]};
}

}  // namespace cuda_on_cpu

#define threadIdx (::cuda_on_cpu::thread_index)
#define blockIdx (::cuda_on_cpu::block_index)
#define blockDim (::cuda_on_cpu::block_size)
#define gridDim (::cuda_on_cpu::grid_size)

inline void __syncthreads() { cuda_on_cpu::meet(cuda_on_cpu::Meeting::block, "__syncthreads"); }

inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline int __float_as_int(float x) { return static_cast<int>(__float_as_uint(x)); }
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<uint32_t>(bits)); }
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __clz(uint32_t x) { return x == 0 ? 32 : __builtin_clz(x); }
template <class T>
T __ldg(const T* at) {
  return *at;
}
template <class T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at = before + value;
  return before;
}
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline float __expf(float x) { return std::exp(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

#include "instructions.h"

// In CUDA it may stand behind __shared__, where C++ does not allow it.
#define alignas(n) __attribute__((aligned(n)))
