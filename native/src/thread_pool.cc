#include "thread_pool.h"

#include <algorithm>
#include <chrono>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ark {
namespace {

// Long enough to bridge the gap between two steps, short enough not to matter to other processes.
constexpr auto kSpin = std::chrono::microseconds(60);
constexpr int kSpinsPerClock = 64;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int32_t threads) {
  try {
    for (int32_t i = 1; i < threads; i++) workers_.emplace_back([this, i] { work(i); });
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_.store(true);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

Parallel ThreadPool::parallel() {
  return {this, threads(),
          [](void* pool, int64_t count, void (*body)(void*, int64_t, int32_t), void* user) {
            static_cast<ThreadPool*>(pool)->run(count, body, user);
          }};
}

int32_t ThreadPool::available_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max<int32_t>(1, static_cast<int32_t>(std::thread::hardware_concurrency()));
}

void ThreadPool::run(int64_t count, void (*body)(void*, int64_t, int32_t), void* user) {
  if (workers_.empty() || count <= 1) {
    for (int64_t i = 0; i < count; i++) body(user, i, 0);
    return;
  }
  constexpr int64_t kMost = int64_t{1} << 31;
  for (int64_t first = 0; first < count; first += kMost) {
    run_round(std::min(kMost, count - first), body, user, first);
  }
}

void ThreadPool::run_round(int64_t count, void (*body)(void*, int64_t, int32_t), void* user,
                           int64_t first) {
  body_.store(body, std::memory_order_relaxed);
  user_.store(user, std::memory_order_relaxed);
  first_.store(first, std::memory_order_relaxed);
  count_.store(static_cast<uint32_t>(count), std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  auto run = static_cast<uint32_t>(cursor_.load(std::memory_order_relaxed) >> 32) + 1;
  uint64_t cursor = pack(run, static_cast<uint32_t>(count));
  cursor_.store(cursor);
  // Sequentially consistent, like the store above: either a worker that goes to sleep sees the new
  // cursor, or this thread sees that it sleeps.
  if (sleeping_.load() > 0) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
    }
    wake_.notify_all();
  }
  int64_t mine = take_items(cursor, 0);
  int spins = 0;
  while (done_.load(std::memory_order_acquire) + mine < count) {
    pause();
    if (++spins % 1024 == 0) std::this_thread::yield();  // a worker may have lost its core
  }
}

int64_t ThreadPool::take_items(uint64_t cursor, int32_t thread) {
  const auto run = static_cast<uint32_t>(cursor >> 32);
  auto* body = body_.load(std::memory_order_relaxed);
  void* user = user_.load(std::memory_order_relaxed);
  int64_t first = first_.load(std::memory_order_relaxed);
  int64_t count = count_.load(std::memory_order_relaxed);
  int64_t taken = 0;
  for (;;) {
    auto left = static_cast<uint32_t>(cursor);
    if (static_cast<uint32_t>(cursor >> 32) != run || left == 0) return taken;
    // Success proves that this run still has open items, so the fields read above belong to it.
    if (!cursor_.compare_exchange_weak(cursor, pack(run, left - 1), std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    body(user, first + count - left, thread);
    taken++;
    cursor = cursor_.load(std::memory_order_acquire);
  }
}

bool ThreadPool::wait_for_work(uint64_t* cursor) {
  auto found = [&] {
    *cursor = cursor_.load();
    return static_cast<uint32_t>(*cursor) != 0 || stop_.load();
  };
  auto until = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < kSpinsPerClock; i++) {
      if (found()) return !stop_.load();
      pause();
    }
  } while (std::chrono::steady_clock::now() < until);
  std::unique_lock<std::mutex> lock(mutex_);
  sleeping_.fetch_add(1);
  wake_.wait(lock, found);
  sleeping_.fetch_sub(1);
  return !stop_.load();
}

void ThreadPool::work(int32_t thread) {
  uint64_t cursor = 0;
  while (wait_for_work(&cursor)) {
    int64_t taken = take_items(cursor, thread);
    if (taken) done_.fetch_add(taken, std::memory_order_release);
  }
}

}  // namespace ark
