#include "kv_cache.h"

#include <algorithm>
#include <cstring>

#include "kv_layout.h"

namespace ark {
namespace {

constexpr int64_t kHalf = 2;   // bytes of fp16
constexpr int64_t kFloat = 4;  // bytes of fp32

// Units of `bytes` at `start` + i * `step`, one per index i: how a token's part of a block lies.
struct Strided {
  int64_t start, step, count, bytes;
};

void copy(const char* from_block, const Strided& from, char* to_block, const Strided& to) {
  for (int64_t i = 0; i < from.count; i++) {
    std::memcpy(to_block + to.start + i * to.step, from_block + from.start + i * from.step,
                static_cast<size_t>(from.bytes));
  }
}

// The whole-byte parts of token t of a block: codes, and scales where there are any.
int token_parts(const CacheStore& cache, int64_t t, Strided parts[3]) {
  const bool key = cache.kind != CacheKind::value;
  const int64_t d = cache.head_dim;
  if (cache.dtype == DType::i8) {
    int64_t padded = kv_padded(d, key ? 4 : 16);
    parts[0] = key ? Strided{t * 4, kKvBlock * 4, padded / 4, 4}
                   : Strided{t / 4 * padded * 4 + t % 4, 4, padded, 1};
    parts[1] = {kKvBlock * padded + t * kFloat, 0, 1, kFloat};
    return 2;
  }
  if (cache.dtype == DType::u4) {
    int64_t groups = kv_padded(d, kKvGroup) / kKvGroup;
    int64_t codes = kKvBlock * groups * kKvGroup / 2;
    int64_t scales = kKvBlock * groups * kHalf;
    for (int i = 0; i < 2; i++) {
      int64_t at = codes + i * scales;
      parts[i] = key ? Strided{at + t * kHalf, kKvBlock * kHalf, groups, kHalf}
                     : Strided{at + t * groups * kHalf, 0, 1, groups * kHalf};
    }
    if (key) return 2;  // two tokens share each byte of codes
    parts[2] = {t * groups * kKvGroup / 2, 0, 1, groups * kKvGroup / 2};
    return 3;
  }
  int64_t element = cache.dtype == DType::f16 ? kHalf : kFloat;
  parts[0] = key ? Strided{t * element, kKvBlock * element, d, element}
                 : Strided{t * d * element, 0, 1, d * element};
  return 1;
}

// The 4-bit codes of a key: token t in the low nibble of byte t, token t + 32 in the high one.
void copy_key_nibbles(const CacheStore& cache, const char* from, int64_t s, char* to, int64_t t) {
  constexpr int64_t kPairs = kKvBlock / 2;
  for (int64_t j = 0; j < kv_padded(cache.head_dim, kKvGroup); j++) {
    int code = static_cast<uint8_t>(from[j * kPairs + s % kPairs]) >> (s < kPairs ? 0 : 4) & 15;
    char* byte = to + j * kPairs + t % kPairs;
    *byte = static_cast<char>(t < kPairs ? (*byte & 0xf0) | code : (*byte & 0x0f) | code << 4);
  }
}

// Eight independent xorshift generators (Marsaglia 2003), which the compiler runs in vectors.
class Random {
 public:
  explicit Random(uint64_t stream) {
    for (uint64_t& lane : lanes_) {  // SplitMix64 (Steele, Lea and Flood 2014)
      stream += 0x9e3779b97f4a7c15u;
      uint64_t z = (stream ^ stream >> 30) * 0xbf58476d1ce4e5b9u;
      z = (z ^ z >> 27) * 0x94d049bb133111ebu;
      lane = (z ^ z >> 31) | 1;
    }
  }

  // (random & keep) | set, over the bytes; the masks repeat every 8 bytes.
  void fill(char* bytes, int64_t count, uint64_t keep, uint64_t set) {
    for (int64_t done = 0; done < count; done += kBytes) {
      uint64_t out[kLanes];
      for (int i = 0; i < kLanes; i++) {
        uint64_t x = lanes_[i];
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        lanes_[i] = x;
        out[i] = (x & keep) | set;
      }
      std::memcpy(bytes + done, out, static_cast<size_t>(std::min(kBytes, count - done)));
    }
  }

 private:
  static constexpr int kLanes = 8;
  static constexpr int64_t kBytes = kLanes * 8;
  uint64_t lanes_[kLanes];
};

constexpr uint64_t repeat16(uint64_t bits) { return bits * 0x0001000100010001u; }
constexpr uint64_t repeat32(uint64_t bits) { return bits * 0x0000000100000001u; }

template <typename T>
void set_all(char* at, int64_t count, T bits) {
  for (int64_t i = 0; i < count; i++) {
    std::memcpy(at + i * static_cast<int64_t>(sizeof(T)), &bits, sizeof(T));
  }
}

// Signs and magnitudes from 0.5 to 2: any sign and mantissa, and the lowest bit of the exponent.
void fill_floats(const CacheStore& cache, char* block, Random* random) {
  if (cache.dtype == DType::f16) {
    random->fill(block, cache.block_bytes(), repeat16(0x87ff), repeat16(0x3800));
  } else {
    random->fill(block, cache.block_bytes(), repeat32(0x80ffffff), repeat32(0x3f000000));
  }
}

void fill_int8(const CacheStore& cache, char* block, Random* random) {
  const int64_t d = cache.head_dim;
  const bool key = cache.kind != CacheKind::value;
  const int64_t padded = kv_padded(d, key ? 4 : 16);
  // Odd codes: -128 never occurs, as it never does when numbers are rounded.
  random->fill(block, kKvBlock * padded, ~uint64_t{0}, 0x0101010101010101u);
  for (int64_t j = d; j < padded; j++) {
    for (int64_t t = 0; t < kKvBlock; t++) {
      block[key ? (j / 4 * kKvBlock + t) * 4 + j % 4 : (t / 4 * padded + j) * 4 + t % 4] = 0;
    }
  }
  const float scale = 2.0F / 127;
  uint32_t bits;
  std::memcpy(&bits, &scale, sizeof(bits));
  set_all(block + kKvBlock * padded, kKvBlock, bits);
}

void fill_int4(const CacheStore& cache, char* block, Random* random) {
  const int64_t d = cache.head_dim;
  const int64_t groups = kv_padded(d, kKvGroup) / kKvGroup;
  const int64_t codes = kKvBlock * groups * kKvGroup / 2;
  random->fill(block, codes, ~uint64_t{0}, 0);
  for (int64_t j = d; j < groups * kKvGroup; j++) {
    for (int64_t t = 0; cache.kind != CacheKind::value && t < kKvBlock / 2; t++) {
      block[j * (kKvBlock / 2) + t] = 0;
    }
    for (int64_t t = 0; cache.kind == CacheKind::value && t < kKvBlock; t++) {
      char* byte = block + (t * groups + j / kKvGroup) * 16 + j % 16;
      *byte = static_cast<char>(*byte & (j % kKvGroup < 16 ? 0xf0 : 0x0f));
    }
  }
  set_all(block + codes, kKvBlock * groups, uint16_t{0x3266});                          // 0.2
  set_all(block + codes + kKvBlock * groups * 2, kKvBlock * groups, uint16_t{0xbe00});  // -1.5
}

}  // namespace

int64_t CacheStore::block_bytes() const {
  return kind == CacheKind::value ? kv_value_block_bytes(dtype, head_dim)
                                  : kv_key_block_bytes(dtype, head_dim);
}

void copy_token(const CacheStore& cache, int64_t from, int64_t to) {
  Strided sources[3];
  Strided targets[3];
  int count = token_parts(cache, from % kKvBlock, sources);
  token_parts(cache, to % kKvBlock, targets);
  for (int64_t head = 0; head < cache.kv_heads; head++) {
    const char* source = cache.block(head, from / kKvBlock);
    char* target = cache.block(head, to / kKvBlock);
    for (int i = 0; i < count; i++) copy(source, sources[i], target, targets[i]);
    if (cache.dtype == DType::u4 && cache.kind != CacheKind::value) {
      copy_key_nibbles(cache, source, from % kKvBlock, target, to % kKvBlock);
    }
  }
}

void fill_block(const CacheStore& cache, int64_t head, int64_t index, uint64_t stream) {
  Random random(stream);
  char* block = cache.block(head, index);
  if (cache.dtype == DType::i8) {
    fill_int8(cache, block, &random);
  } else if (cache.dtype == DType::u4) {
    fill_int4(cache, block, &random);
  } else {
    fill_floats(cache, block, &random);
  }
}

}  // namespace ark
