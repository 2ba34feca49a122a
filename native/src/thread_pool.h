// A small pool: the caller works too, idle threads spin for a moment and then sleep.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "kernel.h"

namespace ark {

class ThreadPool {
 public:
  // threads counts the caller; values below 1 become 1. One run at a time.
  explicit ThreadPool(int32_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int32_t threads() const { return static_cast<int32_t>(workers_.size()) + 1; }
  Parallel parallel();
  // Runs body(user, index, thread) for each index in [0, count); body must not throw.
  void run(int64_t count, void (*body)(void*, int64_t, int32_t), void* user);

  // What "0 threads" means: the cores that this process may use.
  static int32_t available_cores();

 private:
  // How many items are left, and in the upper half which run they belong to: claiming an item is
  // one compare-and-swap that fails when another run has begun.
  static uint64_t pack(uint32_t run, uint32_t left) { return uint64_t{run} << 32 | left; }
  void work(int32_t thread);
  void run_round(int64_t count, void (*body)(void*, int64_t, int32_t), void* user, int64_t first);
  int64_t take_items(uint64_t cursor, int32_t thread);
  bool wait_for_work(uint64_t* cursor);
  void stop();

  std::atomic<uint64_t> cursor_{0};
  std::atomic<int64_t> done_{0};
  std::atomic<int64_t> first_{0};
  std::atomic<uint32_t> count_{0};
  std::atomic<void (*)(void*, int64_t, int32_t)> body_{nullptr};
  std::atomic<void*> user_{nullptr};
  std::atomic<bool> stop_{false};
  std::atomic<int32_t> sleeping_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace ark
