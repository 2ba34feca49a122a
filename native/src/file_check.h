// The checksum of a large file, computed beside other work that already uses the file.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "crc32c.h"
#include "manifest.h"
#include "mapped_file.h"

namespace ark {

// Raises ARK_DAMAGED_BUNDLE when a listed file has another checksum.
void compare_checksum(const ManifestFile& entry, uint32_t found);

class FileCheck {
 public:
  // Starts reading file, which is held once more until the check has ended.
  FileCheck(const MappedFile& file, const ManifestFile& entry);
  ~FileCheck();
  FileCheck(const FileCheck&) = delete;
  FileCheck& operator=(const FileCheck&) = delete;

  // Waits for the end; may be called from several threads. Raises ARK_DAMAGED_BUNDLE.
  void wait() const;

 private:
  void work();

  MappedFile file_;
  ManifestFile entry_;
  BundleChecksum checksum_;
  std::atomic<size_t> next_{0};
  std::atomic<size_t> done_{0};
  std::atomic<bool> stop_{false};
  mutable std::atomic<bool> good_{false};
  mutable std::mutex mutex_;
  mutable std::condition_variable ended_;
  std::vector<std::thread> threads_;
};

}  // namespace ark
