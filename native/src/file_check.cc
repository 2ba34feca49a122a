#include "file_check.h"

#include <algorithm>
#include <cstdio>
#include <system_error>

#include "error.h"
#include "thread_pool.h"

namespace ark {
namespace {

// One thread alone leaves a disk idle while it computes; more than two read no faster.
constexpr int32_t kThreads = 2;

}  // namespace

void compare_checksum(const ManifestFile& entry, uint32_t found) {
  if (found == entry.crc32c) return;
  char text[64];
  std::snprintf(text, sizeof(text), "0x%08x; expected 0x%08x", found, entry.crc32c);
  fail(ARK_DAMAGED_BUNDLE, quote(entry.name) + " has checksum " + text, "",
       "copy or compile the bundle again");
}

// A mapping of its own, whose pages are given up as they are done: what the model never touches
// does not stay in the process.
FileCheck::FileCheck(const MappedFile& file, const ManifestFile& entry)
    : file_(file.again()), entry_(entry), checksum_(file.size()) {
  file_.prefetch();
  try {
    int32_t count = std::min(kThreads, ThreadPool::available_cores());
    for (int32_t i = 0; i < count; i++) threads_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    work();
  }
}

FileCheck::~FileCheck() {
  stop_.store(true);
  for (std::thread& thread : threads_) thread.join();
}

void FileCheck::work() {
  const size_t pieces = checksum_.pieces();
  for (size_t piece = next_++; piece < pieces && !stop_.load(); piece = next_++) {
    checksum_.add(file_.data(), piece);
    file_.release(piece * BundleChecksum::kPiece, BundleChecksum::kPiece);
    if (++done_ == pieces) {
      std::lock_guard<std::mutex> lock(mutex_);
      ended_.notify_all();
    }
  }
}

void FileCheck::wait() const {
  if (good_.load(std::memory_order_relaxed)) return;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    ended_.wait(lock, [this] { return done_.load() == checksum_.pieces(); });
  }
  compare_checksum(entry_, checksum_.value());
  good_.store(true, std::memory_order_relaxed);
}

}  // namespace ark
