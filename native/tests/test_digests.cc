#include <algorithm>
#include <string>
#include <vector>

#include "arkinfer.h"
#include "check.h"
#include "crc32c.h"
#include "sha256.h"
#include "thread_pool.h"

using namespace ark;

static std::string pattern(size_t size) {
  std::string bytes(size, 0);
  uint32_t state = 1;
  for (char& c : bytes) {
    state = state * 1664525u + 1013904223u;
    c = static_cast<char>(state >> 24);
  }
  return bytes;
}

// Examples of FIPS 180-4.
TEST(sha256_vectors) {
  CHECK(sha256_hex("", 0) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_hex("abc", 3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  std::string two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  CHECK(sha256_hex(two.data(), two.size()) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  std::string million(1000000, 'a');
  CHECK(sha256_hex(million.data(), million.size()) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

// Examples of RFC 3720, appendix B.4.
TEST(crc32c_vectors) {
  std::string ascending;
  for (int i = 0; i < 32; i++) ascending += static_cast<char>(i);
  struct Vector {
    std::string bytes;
    uint32_t crc;
  };
  for (const Vector& v :
       {Vector{std::string(32, '\0'), 0x8A9136AAu}, Vector{std::string(32, '\xFF'), 0x62A8AB43u},
        Vector{ascending, 0x46DD794Eu}, Vector{"123456789", 0xE3069283u}, Vector{"", 0u}}) {
    CHECK(crc32c(v.bytes.data(), v.bytes.size()) == v.crc);
    CHECK(crc32c_table(v.bytes.data(), v.bytes.size()) == v.crc);
  }
}

TEST(crc32c_versions_agree) {
  std::string bytes = pattern(300);
  for (size_t start = 0; start < 9; start++) {
    for (size_t size = 0; size + start < bytes.size(); size += 7) {
      CHECK(crc32c(&bytes[start], size) == crc32c_table(&bytes[start], size));
    }
  }
}

TEST(bundle_checksum_is_a_checksum_of_checksums) {
  constexpr size_t kChunk = 65536;
  ThreadPool pool(3);
  for (size_t size : {size_t{0}, size_t{1}, kChunk - 1, kChunk, kChunk + 1, 4 * kChunk,
                      4 * kChunk + 5, 9 * kChunk, 13 * kChunk + 77}) {
    std::string bytes = pattern(size);
    std::string list;
    for (size_t at = 0; at < size; at += kChunk) {
      uint32_t crc = crc32c_table(&bytes[at], std::min(kChunk, size - at));
      for (int shift = 0; shift < 32; shift += 8) list += static_cast<char>(crc >> shift);
    }
    uint32_t expected = crc32c_table(list.data(), list.size());
    CHECK(bundle_checksum(bytes.data(), size, pool.parallel()) == expected);
    CHECK(ark_checksum(bytes.data(), size) == expected);
  }
}
