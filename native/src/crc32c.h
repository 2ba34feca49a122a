// CRC-32C (Castagnoli) and the bundle format's file checksum.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel.h"

namespace ark {

uint32_t crc32c(const void* data, size_t size);
// The portable version, for CPUs without CRC instructions and as the test's reference.
uint32_t crc32c_table(const void* data, size_t size);

// docs/bundle.md: CRC-32C of the list of CRC-32Cs of 64 KiB chunks.
uint32_t bundle_checksum(const void* data, size_t size, const Parallel& parallel);

}  // namespace ark
