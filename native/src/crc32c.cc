#include "crc32c.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu_features.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#define ARK_CRC_TARGET __attribute__((target("sse4.2")))
#define ARK_CRC_STEP(crc, word) static_cast<uint32_t>(_mm_crc32_u64(crc, word))
#define ARK_CRC_BYTE(crc, byte) _mm_crc32_u8(crc, byte)
#elif defined(__aarch64__)
#if defined(__clang__)
#define ARK_CRC_TARGET __attribute__((target("crc")))
#else
#define ARK_CRC_TARGET __attribute__((target("+crc")))
#endif
#define ARK_CRC_STEP(crc, word) __builtin_aarch64_crc32cx(crc, word)
#define ARK_CRC_BYTE(crc, byte) __builtin_aarch64_crc32cb(crc, byte)
#if defined(__clang__)
#undef ARK_CRC_STEP
#undef ARK_CRC_BYTE
#define ARK_CRC_STEP(crc, word) __builtin_arm_crc32cd(crc, word)
#define ARK_CRC_BYTE(crc, byte) __builtin_arm_crc32cb(crc, byte)
#endif
#endif

namespace ark {
namespace {

constexpr size_t kChunk = 65536;
constexpr int kLanes = 4;  // the CRC instruction's latency is 3 cycles, its throughput 1

struct Tables {
  uint32_t by_byte[8][256];
  Tables() {
    for (uint32_t i = 0; i < 256; i++) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
      by_byte[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++) {
      for (int t = 1; t < 8; t++) {
        uint32_t before = by_byte[t - 1][i];
        by_byte[t][i] = by_byte[0][before & 255] ^ before >> 8;
      }
    }
  }
};

#if defined(ARK_CRC_TARGET)
ARK_CRC_TARGET uint32_t hardware(const void* data, size_t size) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  uint32_t crc = ~0u;
  for (; size >= 8; size -= 8, bytes += 8) {
    uint64_t word;
    std::memcpy(&word, bytes, 8);
    crc = ARK_CRC_STEP(crc, word);
  }
  for (; size; size--, bytes++) crc = ARK_CRC_BYTE(crc, *bytes);
  return ~crc;
}

// kLanes whole chunks in lockstep, because one chain of CRC instructions waits for itself.
ARK_CRC_TARGET void hardware_lanes(const unsigned char* bytes, uint32_t* out) {
  uint32_t a = ~0u, b = ~0u, c = ~0u, d = ~0u;
  for (size_t at = 0; at < kChunk; at += 8) {
    uint64_t word[kLanes];
    for (int lane = 0; lane < kLanes; lane++) {
      std::memcpy(&word[lane], bytes + static_cast<size_t>(lane) * kChunk + at, 8);
    }
    a = ARK_CRC_STEP(a, word[0]);
    b = ARK_CRC_STEP(b, word[1]);
    c = ARK_CRC_STEP(c, word[2]);
    d = ARK_CRC_STEP(d, word[3]);
  }
  out[0] = ~a;
  out[1] = ~b;
  out[2] = ~c;
  out[3] = ~d;
}
#endif

bool use_hardware() {
#if defined(ARK_CRC_TARGET)
  static const bool found = cpu_has_crc32();
  return found;
#else
  return false;
#endif
}

}  // namespace

uint32_t crc32c_table(const void* data, size_t size) {
  static const Tables tables;
  const auto& t = tables.by_byte;
  const auto* bytes = static_cast<const unsigned char*>(data);
  uint32_t crc = ~0u;
  for (; size >= 8; size -= 8, bytes += 8) {
    uint32_t low = crc ^ (uint32_t{bytes[0]} | uint32_t{bytes[1]} << 8 | uint32_t{bytes[2]} << 16 |
                          uint32_t{bytes[3]} << 24);
    crc = t[7][low & 255] ^ t[6][low >> 8 & 255] ^ t[5][low >> 16 & 255] ^ t[4][low >> 24] ^
          t[3][bytes[4]] ^ t[2][bytes[5]] ^ t[1][bytes[6]] ^ t[0][bytes[7]];
  }
  for (; size; size--, bytes++) crc = t[0][(crc ^ *bytes) & 255] ^ crc >> 8;
  return ~crc;
}

uint32_t crc32c(const void* data, size_t size) {
#if defined(ARK_CRC_TARGET)
  if (use_hardware()) return hardware(data, size);
#endif
  return crc32c_table(data, size);
}

BundleChecksum::BundleChecksum(size_t bytes) : size_(bytes), list_((bytes + kChunk - 1) / kChunk) {}

void BundleChecksum::add(const void* data, size_t piece) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  size_t chunk = piece * (kPiece / kChunk);
  size_t end = std::min(chunk + kPiece / kChunk, list_.size());
#if defined(ARK_CRC_TARGET)
  for (; use_hardware() && (chunk + kLanes) * kChunk <= size_ && chunk < end; chunk += kLanes) {
    hardware_lanes(bytes + chunk * kChunk, &list_[chunk]);
  }
#endif
  for (; chunk < end; chunk++) {
    size_t from = chunk * kChunk;
    list_[chunk] = crc32c(bytes + from, std::min(size_ - from, kChunk));
  }
}

uint32_t BundleChecksum::value() const {
  std::vector<unsigned char> bytes;
  bytes.reserve(list_.size() * 4);
  for (uint32_t crc : list_) {
    for (int shift = 0; shift < 32; shift += 8) {
      bytes.push_back(static_cast<unsigned char>(crc >> shift));
    }
  }
  return crc32c(bytes.data(), bytes.size());
}

uint32_t bundle_checksum(const void* data, size_t size, const Parallel& parallel) {
  struct Job {
    const void* data;
    BundleChecksum checksum;
  } job{data, BundleChecksum(size)};
  auto add = [](void* user, int64_t piece, int32_t) {
    auto* work = static_cast<Job*>(user);
    work->checksum.add(work->data, static_cast<size_t>(piece));
  };
  parallel.run(parallel.pool, static_cast<int64_t>(job.checksum.pieces()), add, &job);
  return job.checksum.value();
}

}  // namespace ark
