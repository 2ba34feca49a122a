// Moving and filling tokens in every layout of the caches.
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "check.h"
#include "fixture.h"
#include "kv_cache.h"
#include "kv_layout.h"

using namespace ark;
using namespace ark::testing;

namespace {

constexpr int64_t kHeads = 2;
constexpr int64_t kBlocks = 3;

struct Cache {
  std::vector<char> bytes;
  CacheStore store;

  Cache(CacheKind kind, DType dtype, int64_t head_dim)
      : store{nullptr, kind, dtype, kHeads, head_dim, kBlocks} {
    bytes.assign(static_cast<size_t>(kHeads * kBlocks * store.block_bytes()), 0);
    store.data = bytes.data();
  }

  // What the layouts of docs/bundle.md say about one number: its code and where its scale is.
  std::string number(int64_t head, int64_t token, int64_t d) const {
    const char* block = store.block(head, token / 64);
    const bool key = store.kind == CacheKind::key;
    const int64_t t = token % 64;
    const int64_t dim = store.head_dim;
    if (store.dtype == DType::f16 || store.dtype == DType::f32) {
      int64_t size = store.dtype == DType::f16 ? 2 : 4;
      return {block + (key ? d * 64 + t : t * dim + d) * size, static_cast<size_t>(size)};
    }
    if (store.dtype == DType::i8) {
      int64_t padded = kv_padded(dim, key ? 4 : 16);
      int64_t code = key ? (d / 4 * 64 + t) * 4 + d % 4 : (t / 4 * padded + d) * 4 + t % 4;
      return std::string(1, block[code]) + std::string(block + 64 * padded + t * 4, 4);
    }
    int64_t groups = (dim + 31) / 32;
    int64_t g = d / 32;
    int64_t code = key ? d * 32 + t % 32 : (t * groups + g) * 16 + d % 16;
    bool high = key ? t >= 32 : d % 32 >= 16;
    int64_t scale = 64 * groups * 16 + 2 * (key ? g * 64 + t : t * groups + g);
    int64_t minimum = scale + 64 * groups * 2;
    int nibble = static_cast<uint8_t>(block[code]) >> (high ? 4 : 0) & 15;
    return std::string(1, static_cast<char>(nibble)) + std::string(block + scale, 2) +
           std::string(block + minimum, 2);
  }

  std::vector<std::string> token(int64_t index) const {
    std::vector<std::string> numbers;
    for (int64_t head = 0; head < kHeads; head++) {
      for (int64_t d = 0; d < store.head_dim; d++) numbers.push_back(number(head, index, d));
    }
    return numbers;
  }
};

template <typename Body>
void for_every_layout(Body body) {
  for (CacheKind kind : {CacheKind::key, CacheKind::value}) {
    for (DType dtype : {DType::f32, DType::f16, DType::i8, DType::u4}) {
      for (int64_t head_dim : {1, 6, 32, 40, 128}) {
        Cache cache(kind, dtype, head_dim);
        body(&cache);
      }
    }
  }
}

// A byte of its own for every place, so that a wrong one shows.
void number_bytes(Cache* cache) {
  uint32_t state = 1;
  for (char& byte : cache->bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<char>(state >> 24);
  }
}

}  // namespace

TEST(kv_cache_copies_one_token) {
  for_every_layout([](Cache* cache) {
    for (auto pair : {std::pair<int64_t, int64_t>{130, 3}, {70, 69}, {40, 8}, {8, 7}, {100, 63}}) {
      number_bytes(cache);
      std::vector<std::vector<std::string>> before;
      for (int64_t t = 0; t < kBlocks * 64; t++) before.push_back(cache->token(t));
      copy_token(cache->store, pair.first, pair.second);
      for (int64_t t = 0; t < kBlocks * 64; t++) {
        auto source = static_cast<size_t>(t == pair.second ? pair.first : t);
        CHECK(cache->token(t) == before[source]);
      }
    }
  });
}

TEST(kv_cache_fills_are_reproducible_and_differ) {
  for_every_layout([](Cache* cache) {
    Cache other(cache->store.kind, cache->store.dtype, cache->store.head_dim);
    fill_block(cache->store, 1, 2, 5);
    fill_block(other.store, 1, 2, 5);
    CHECK(cache->bytes == other.bytes);
    fill_block(other.store, 1, 2, 6);
    CHECK(cache->bytes != other.bytes);
    auto untouched =
        static_cast<std::ptrdiff_t>((kHeads * kBlocks - 1) * cache->store.block_bytes());
    for (auto at = cache->bytes.begin(); at != cache->bytes.begin() + untouched; at++) {
      CHECK(*at == 0);
    }
  });
}

TEST(kv_cache_fills_have_a_realistic_scale) {
  for (CacheKind kind : {CacheKind::key, CacheKind::value}) {
    Cache floats(kind, DType::f32, 128);
    fill_block(floats.store, 0, 0, 9);
    double sum = 0;
    double squares = 0;
    std::set<float> seen;
    for (int i = 0; i < 64 * 128; i++) {
      float value;
      std::memcpy(&value, floats.bytes.data() + i * 4, 4);
      CHECK(std::fabs(value) >= 0.5F && std::fabs(value) < 2.0F);
      sum += double{value};
      squares += double{value} * double{value};
      seen.insert(value);
    }
    CHECK(std::fabs(sum / 8192) < 0.06 && std::fabs(std::sqrt(squares / 8192) - 1.2) < 0.05);
    CHECK(seen.size() > 8000);
    Cache codes(kind, DType::i8, 128);
    fill_block(codes.store, 0, 0, 9);
    for (size_t i = 0; i < 64 * 128; i++) CHECK(static_cast<int8_t>(codes.bytes[i]) != -128);
  }
}

TEST(kv_cache_fills_leave_padding_zero) {
  for (CacheKind kind : {CacheKind::key, CacheKind::value}) {
    for (DType dtype : {DType::i8, DType::u4}) {
      Cache narrow(kind, dtype, 6);
      fill_block(narrow.store, 0, 0, 3);
      int64_t unit = dtype == DType::u4 ? 32 : kind == CacheKind::key ? 4 : 16;
      narrow.store.head_dim = kv_padded(6, unit);  // the same block, read to its edge
      for (int64_t t = 0; t < 64; t++) {
        for (int64_t d = 6; d < narrow.store.head_dim; d++) CHECK(narrow.number(0, t, d)[0] == 0);
      }
    }
  }
}

TEST(session_fills_itself) {
  Session session(tiny_model(), tiny_options());
  session.fill_random(150, 7);
  CHECK(session.length() == 150);
  Session again(tiny_model(), tiny_options(kContext, 3));
  again.fill_random(150, 7);
  std::vector<float> one(kVocab);
  std::vector<float> two(kVocab);
  const int32_t token = 5;
  session.append(&token, 1, false, one.data());
  again.append(&token, 1, false, two.data());
  CHECK(one == two && session.length() == 151);
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("holds 151 tokens", "an empty one"),
              session.fill_random(10, 7));
  session.rollback(0);
  CHECK_ERROR(ARK_CONTEXT_OVERFLOW, PARTS("201 tokens", "at most 200"),
              session.fill_random(kContext + 1, 7));
  session.fill_random(0, 7);
  CHECK(session.length() == 0);
}
