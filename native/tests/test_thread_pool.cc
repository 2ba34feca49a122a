#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "check.h"
#include "thread_pool.h"

using ark::ThreadPool;

namespace {

struct Tally {
  std::vector<int> counts;  // not atomic: an index that ran twice at once would be a race
  std::atomic<int64_t> bad_threads{0};
  int32_t threads;
};

void count(void* user, int64_t index, int32_t thread) {
  auto* tally = static_cast<Tally*>(user);
  tally->counts[static_cast<size_t>(index)]++;
  if (thread < 0 || thread >= tally->threads) tally->bad_threads++;
}

}  // namespace

TEST(thread_pool_runs_every_index_once) {
  for (int32_t threads : {0, 1, 2, 3, 5}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == std::max(1, threads));
    for (int round = 0; round < 300; round++) {
      int64_t n = round % 37;
      Tally tally{std::vector<int>(static_cast<size_t>(n)), {}, pool.threads()};
      pool.run(n, count, &tally);
      CHECK(tally.bad_threads == 0);
      for (int times : tally.counts) CHECK(times == 1);
    }
  }
}

TEST(thread_pool_wakes_sleepers) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; round++) {
    std::this_thread::sleep_for(
        std::chrono::milliseconds(round % 3));  // long enough to fall asleep
    Tally tally{std::vector<int>(64), {}, 3};
    pool.run(64, count, &tally);
    for (int times : tally.counts) CHECK(times == 1);
  }
}

TEST(thread_pool_uses_its_threads) {
  ThreadPool pool(2);
  std::atomic<int> inside{0};
  // Each of two items waits for the other, so that one thread alone could not finish.
  pool.run(
      2,
      [](void* user, int64_t, int32_t) {
        auto* both = static_cast<std::atomic<int>*>(user);
        both->fetch_add(1);
        while (both->load() < 2) std::this_thread::yield();
      },
      &inside);
  CHECK(inside == 2);
}
