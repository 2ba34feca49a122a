// CRC-32C (Castagnoli) and the bundle format's file checksum.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernel.h"

namespace ark {

uint32_t crc32c(const void* data, size_t size);
// The portable version, for CPUs without CRC instructions and as the test's reference.
uint32_t crc32c_table(const void* data, size_t size);

// docs/bundle.md: CRC-32C of the list of CRC-32Cs of 64 KiB chunks. Pieces may be added in any
// order and from several threads.
class BundleChecksum {
 public:
  static constexpr size_t kPiece = size_t{2} << 20;

  explicit BundleChecksum(size_t bytes);
  size_t pieces() const { return (size_ + kPiece - 1) / kPiece; }
  // data is where all the bytes begin, not the piece.
  void add(const void* data, size_t piece);
  uint32_t value() const;

 private:
  size_t size_;
  std::vector<uint32_t> list_;
};

uint32_t bundle_checksum(const void* data, size_t size, const Parallel& parallel);

}  // namespace ark
