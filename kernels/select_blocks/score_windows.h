// Scores of query rows against 64 compressed keys: a product of matrices in strips of 16 windows,
// which all rows share while they lie in the first-level cache.
#pragma once

#include "kernel_check.h"
#include "kv_quantize.h"

ARK_KERNEL_BEGIN

// Rows whose sums stay in registers beside a strip: of floats, and of int8 codes.
#if defined(ARK_ISA_avx512) || defined(ARK_ISA_avx512vnni) || defined(ARK_ISA_amx)
constexpr int kStripRows = 16;
constexpr int kCodeRows = 8;
#elif defined(ARK_ISA_avx2)
constexpr int kStripRows = 6;
constexpr int kCodeRows = 6;
#else
constexpr int kStripRows = 6;
constexpr int kCodeRows = 2;
#endif
// Queries are rounded to 14 bits and sign for int8 keys: 128 times one int8 plus another.
constexpr int64_t kQueryLevels = 127 * 128;

struct Queries {
  int64_t rows;
  int64_t head_dim;
  DType keys;
  float* floats;    // [rows][head_dim], times the softmax scale
  float* scales;    // of the codes of a row
  int16_t* codes;   // [rows][P], of four those of every second dimension side by side
  int8_t* high;     // [rows][P], codes = 128 high + low
  int8_t* low;      // [rows][P]
  int32_t* totals;  // of the codes of a row
};

inline Queries take_queries(Cursor* at, int64_t rows, int64_t head_dim, DType keys) {
  Queries q = {rows, head_dim, keys, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
  q.floats = at->take<float>(rows * head_dim);
  if (keys == DType::i8) {
    int64_t codes = rows * kv_padded(head_dim, kLanes);
    q.scales = at->take<float>(rows);
    q.codes = at->take<int16_t>(codes);
    q.high = at->take<int8_t>(codes);
    q.low = at->take<int8_t>(codes);
    q.totals = at->take<int32_t>(rows);
  }
  return q;
}

// Sixteen codes as the products below want them.
ARK_INLINE void set_codes(const Queries& q, int64_t at, I codes) {
#if defined(ARK_ISA_avx2)
  __m256i words =
      _mm256_packs_epi32(_mm256_shuffle_epi32(codes.a, 0xd8), _mm256_shuffle_epi32(codes.b, 0xd8));
  auto* to = reinterpret_cast<__m256i*>(q.codes + at);
  _mm256_storeu_si256(to, _mm256_permute4x64_epi64(words, 0xd8));
#else
  I upper = sar<7>(add(codes, iset(64)));
  store_i8(q.high + at, upper);
  store_i8(q.low + at, sub(codes, shl<7>(upper)));
#endif
}

// Row r from the floats of one head.
inline void set_query(const Queries& q, int64_t r, const float* x, float scale) {
  float* floats = q.floats + r * q.head_dim;
  for (int64_t j = 0; j < q.head_dim; j += kLanes) {
    int64_t n = q.head_dim - j;
    store_upto(floats + j, mul(load_upto(x + j, n), set(scale)), n);
  }
  if (q.keys != DType::i8) return;
  // Sums of products with codes up to 127 must fit in 32 bits.
  int64_t levels = smaller(kQueryLevels, ((int64_t{1} << 31) - 1) / (127 * q.head_dim));
  float low, high;
  find_range(floats, q.head_dim, &low, &high);
  float most = static_cast<float>(levels);
  q.scales[r] = (high > -low ? high : -low) / most;
  I total = izero();
  int64_t padded = kv_padded(q.head_dim, kLanes);
  for (int64_t j = 0; j < padded; j += kLanes) {
    I codes = codes_of(load_upto(floats + j, q.head_dim - j), 0, q.scales[r], -most, most);
    set_codes(q, r * padded + j, codes);
    total = add(total, codes);
  }
  q.totals[r] = sum(total);
}

// ---- floats ---------------------------------------------------------------------------------

// 16 windows of a block. The first rows that read them leave their floats, or their codes as 16-bit
// integers, in kept for the other rows, and fetch what lies ahead: behind products both are free.
struct KeyStrip {
  const char* keys;   // of the first window, in the block
  const char* ahead;  // a quarter of the next block
  float* kept;
};

// scores[r][0..16) of R rows.
template <int R, typename T, bool First>
ARK_INLINE void score_float_rows(const float* q, int64_t head_dim, const T* keys, int64_t stride,
                                 const KeyStrip& strip, float* scores) {
  V part[R];
  for (int r = 0; r < R; r++) part[r] = zero();
  ARK_ROLLED
  for (int64_t j = 0; j < head_dim; j++) {
    V key = load(keys + j * stride);
    if (First) {
      store(strip.kept + j * kLanes, key);
      prefetch(strip.ahead + j * kLanes * static_cast<int64_t>(sizeof(T)));
    }
    for (int r = 0; r < R; r++) part[r] = fma(set(q[r * head_dim + j]), key, part[r]);
  }
  for (int r = 0; r < R; r++) store(scores + r * kKvBlock, part[r]);
}

template <int R, typename T>
ARK_INLINE void score_floats_from(const Queries& q, int64_t r, const KeyStrip& strip,
                                  float* scores) {
  const float* rows = q.floats + r * q.head_dim;
  float* out = scores + r * kKvBlock;
  if (r == 0) {
    const T* keys = reinterpret_cast<const T*>(strip.keys);
    score_float_rows<R, T, true>(rows, q.head_dim, keys, kKvBlock, strip, out);
  } else {
    score_float_rows<R, float, false>(rows, q.head_dim, strip.kept, kLanes, strip, out);
  }
}

template <typename T>
inline void score_floats(const Queries& q, const KeyStrip& strip, float* scores) {
  int64_t r = 0;
  for (; r + kStripRows <= q.rows; r += kStripRows) {
    score_floats_from<kStripRows, T>(q, r, strip, scores);
  }
  for (; r + 4 <= q.rows; r += 4) score_floats_from<4, T>(q, r, strip, scores);
  for (; r < q.rows; r++) score_floats_from<1, T>(q, r, strip, scores);
}

// ---- int8 -----------------------------------------------------------------------------------

#if defined(ARK_ISA_avx2)

// Not an intrinsic: GCC would compute all products before it adds them, and spill them.
ARK_INLINE void add_to(__m256i* total, __m256i x) {
  __asm__("vpaddd %1, %0, %0" : "+x"(*total) : "x"(x));
}

// Products of 16-bit integers take no more instructions than those of signed bytes do here, and
// leave the queries their precision. Of the four dimensions that lie side by side the first and
// third make one vector and the second and fourth another, as set_codes does with queries: so each
// window's sum stays in one place.
template <int R, bool First>
ARK_INLINE void score_codes_from(const Queries& q, int64_t first, const KeyStrip& strip,
                                 V key_scales, float* scores) {
  int64_t padded = kv_padded(q.head_dim, kLanes);
  const int16_t* codes = q.codes + first * padded;
  auto* kept = reinterpret_cast<__m256i*>(strip.kept);
  __m256i part[R][2];
  for (int r = 0; r < R; r++) part[r][0] = part[r][1] = _mm256_setzero_si256();
  ARK_ROLLED
  for (int64_t j = 0; j < q.head_dim; j += 4) {
    if (First) {
      for (int i = 0; i < 2; i++) {
        __m256i bytes = load256(strip.keys + j * kKvBlock + i * 32);
        _mm256_store_si256(kept + j + i, _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8));
        _mm256_store_si256(kept + j + i + 2, _mm256_srai_epi16(bytes, 8));
      }
      prefetch(strip.ahead + j * kLanes);
    }
    for (int half = 0; half < 2; half++) {
      __m256i key[2];
      for (int i = 0; i < 2; i++) key[i] = _mm256_load_si256(kept + j + 2 * half + i);
      for (int r = 0; r < R; r++) {
        int32_t two;
        memcpy(&two, codes + r * padded + j + 2 * half, sizeof(two));
        __m256i query = _mm256_set1_epi32(two);
        for (int i = 0; i < 2; i++) add_to(&part[r][i], _mm256_madd_epi16(key[i], query));
      }
    }
  }
  for (int r = 0; r < R; r++) {
    V scale = mul(key_scales, set(q.scales[first + r]));
    store(scores + (first + r) * kKvBlock, mul(to_float(I{part[r][0], part[r][1]}), scale));
  }
}
#else

template <int R, bool First>
ARK_INLINE void score_codes_from(const Queries& q, int64_t first, const KeyStrip& strip,
                                 V key_scales, float* scores) {
  int64_t padded = kv_padded(q.head_dim, kLanes);
  I high[R], low[R];
  for (int r = 0; r < R; r++) high[r] = low[r] = izero();
  ARK_ROLLED
  for (int64_t j = 0; j < q.head_dim; j += 4) {
    B codes = load_bytes(strip.keys + j * kKvBlock);
    if (First) prefetch(strip.ahead + j * kLanes);
    for (int r = 0; r < R; r++) {
      int64_t at = (first + r) * padded + j;
      high[r] = dot_i8(high[r], codes, q.high + at);
      low[r] = dot_i8(low[r], codes, q.low + at);
      pin(&high[r]);
      pin(&low[r]);
    }
  }
  for (int r = 0; r < R; r++) {
    I total = sub(add(shl<7>(high[r]), low[r]), iset(kI8Bias * q.totals[first + r]));
    V scale = mul(key_scales, set(q.scales[first + r]));
    store(scores + (first + r) * kKvBlock, mul(to_float(total), scale));
  }
}

#endif

template <int R>
ARK_INLINE void score_some_codes(const Queries& q, int64_t first, const KeyStrip& strip,
                                 V key_scales, float* scores) {
  if (first == 0) {
    score_codes_from<R, true>(q, first, strip, key_scales, scores);
  } else {
    score_codes_from<R, false>(q, first, strip, key_scales, scores);
  }
}

inline void score_codes(const Queries& q, const KeyStrip& strip, const char* scales,
                        float* scores) {
  V key_scales = load(reinterpret_cast<const float*>(scales));
  int64_t r = 0;
  for (; r + kCodeRows <= q.rows; r += kCodeRows) {
    score_some_codes<kCodeRows>(q, r, strip, key_scales, scores);
  }
  for (; r + 4 <= q.rows; r += 4) score_some_codes<4>(q, r, strip, key_scales, scores);
  for (; r < q.rows; r++) score_some_codes<1>(q, r, strip, key_scales, scores);
}

// ---- any type ---------------------------------------------------------------------------------

// What a thread scores with.
struct Strip {
  float* keys;    // [head_dim][16], or as many 16-bit codes
  float* scores;  // [rows][64]
};

inline Strip take_strip(Cursor* at, int64_t rows, int64_t head_dim) {
  Strip s;
  s.keys = at->take<float>(kv_padded(head_dim, 4) * kLanes);
  s.scores = at->take<float>(rows * kKvBlock);
  return s;
}

// scores[r][w] of all rows against the first windows of a block, in whole strips. Meanwhile the
// block after it is fetched, a quarter with each strip.
inline void score_block(const Queries& q, const char* block, int64_t windows, const Strip& s) {
  int64_t bytes = kv_key_block_bytes(q.keys, q.head_dim);
  const char* scales = block + kv_padded(q.head_dim, 4) * kKvBlock;
  for (int64_t w = 0; w < windows; w += kLanes) {
    KeyStrip strip = {block, block + bytes + w / kLanes * (bytes / 4), s.keys};
    float* scores = s.scores + w;
    if (q.keys == DType::i8) {
      strip.keys += w * 4;
      score_codes(q, strip, scales + w * 4, scores);
    } else if (q.keys == DType::f32) {
      strip.keys += w * 4;
      score_floats<float>(q, strip, scores);
    } else {
      strip.keys += w * 2;
      score_floats<Half>(q, strip, scores);
    }
  }
}

ARK_KERNEL_END
