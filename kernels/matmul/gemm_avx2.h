// gemm_tile.h with AVX2: up to six rows by one panel, up to twelve running sums of 16-bit pairs.
#pragma once

#include "panels.h"

ARK_KERNEL_BEGIN

constexpr int kTileRows = 6;
constexpr int kTilePanels = 1;
constexpr int64_t kBlockInputs = 1024;  // 16 KiB of unpacked codes: half of the first-level cache
constexpr int kTileStep = 4;
constexpr bool kPartialTiles = true;
constexpr int64_t kTiledRows = 3;

ARK_INLINE void unpack_step(B first, B second, uint8_t* to) {
  auto* p = reinterpret_cast<__m256i*>(to);
  _mm256_store_si256(p, first.a);
  _mm256_store_si256(p + 1, first.b);
  _mm256_store_si256(p + 2, second.a);
  _mm256_store_si256(p + 3, second.b);
}

// Sums of pairs fit in 16 bits for longer when codes count from their middle, 8 of 4-bit codes: a
// pair is then at most 2 * 8 * 127, and 16 of them 32512. Codes stay unsigned, as maddubs wants
// them, and a sum starts from what they are too large by; that it wraps on its way does no harm.
// Codes with a minimum count from 0 all the same, so that their dot products need no correction.
constexpr int32_t middle_code(DType codes, Offsets kind) {
  if (kind == Offsets::minimum) return 0;
  return codes == DType::u4 ? 8 : codes == DType::u2 ? 1 : 0;
}
constexpr int64_t start_span(DType codes, Offsets kind) {
  return middle_code(codes, kind) != 0 ? 64 : 0;
}

// Of the inputs of a span: what both pairs of the four side by side start from.
ARK_INLINE int32_t start_of(const int8_t* x, int64_t n, int32_t middle) {
  int32_t low = 0, high = 0;
  for (int64_t k = 0; k < n; k += 4) {
    low -= x[k] + x[k + 1];
    high -= x[k + 2] + x[k + 3];
  }
  return static_cast<int32_t>(static_cast<uint32_t>(high * middle) << 16 |
                              static_cast<uint16_t>(low * middle));
}

alignas(32) constexpr uint8_t kLowBits[32] = {15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
                                              15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
                                              15, 15, 15, 15, 15, 15, 15, 15, 15, 15};

// Four inputs of a row, at bytes from x, with both halves of a panel: added to the row's sums, or
// set to them, or what those start from. Both products come before both sums: 6 % faster than in
// turns on Zen 3.
#define ARK_ADD_ROW(at, low, high)  \
  "vpbroadcastd " at                \
  "(%[x]), %[b]\n\t"                \
  "vpmaddubsw %[b], %[c], %[p]\n\t" \
  "vpmaddubsw %[b], %[d], %[b]\n\t" \
  "vpaddw %[p], %[" low "], %[" low \
  "]\n\t"                           \
  "vpaddw %[b], %[" high "], %[" high "]\n\t"
#define ARK_SET_ROW(at, low, high) \
  "vpbroadcastd " at               \
  "(%[x]), %[b]\n\t"               \
  "vpmaddubsw %[b], %[c], %[" low  \
  "]\n\t"                          \
  "vpmaddubsw %[b], %[d], %[" high "]\n\t"
#define ARK_START_ROW(at, low, high)  \
  "vpbroadcastd " at "(%[x]), %[" low \
  "]\n\t"                             \
  "vmovdqa %[" low "], %[" high "]\n\t"
#define ARK_ROWS1(f, x) f(x "+0", "s0", "s1")
#define ARK_ROWS2(f, x) ARK_ROWS1(f, x) f(x "+4", "s2", "s3")
#define ARK_ROWS3(f, x) ARK_ROWS2(f, x) f(x "+8", "s4", "s5")
#define ARK_ROWS4(f, x) ARK_ROWS3(f, x) f(x "+12", "s6", "s7")
#define ARK_ROWS5(f, x) ARK_ROWS4(f, x) f(x "+16", "s8", "s9")
#define ARK_ROWS6(f, x) ARK_ROWS5(f, x) f(x "+20", "s10", "s11")
// The codes of four inputs, and of the next four: a byte each, or packed.
#define ARK_LOW "vmovdqa (%[w]), %[c]\n\tvmovdqa 32(%[w]), %[d]\n\t"
#define ARK_HIGH "vmovdqa 64(%[w]), %[c]\n\tvmovdqa 96(%[w]), %[d]\n\t"
#define ARK_NEXT(bytes) "add $128, %[w]\n\tadd $" bytes ", %[x]\n\tsub $8, %[n]\n\t"
#define ARK_PACKED "vmovdqu (%[w]), %[c]\n\tvmovdqu 32(%[w]), %[d]\n\t"
#define ARK_MASK "vpand %[m], %[c], %[c]\n\tvpand %[m], %[d], %[d]\n\t"
#define ARK_PACKED_LOW ARK_PACKED "prefetcht0 4096(%[w])\n\t" ARK_MASK
#define ARK_PACKED_HIGH ARK_PACKED "vpsrlw $4, %[c], %[c]\n\tvpsrlw $4, %[d], %[d]\n\t" ARK_MASK
#define ARK_PACKED_NEXT(bytes) "add $64, %[w]\n\tadd $" bytes ", %[x]\n\tsub $8, %[n]\n\t"
#define ARK_SUMS(instructions)                                                                     \
  asm volatile(instructions                                                                        \
               : [w] "+r"(weights), [x] "+r"(x), [n] "+r"(inputs), [s0] "=&x"(s0), [s1] "=&x"(s1), \
                 [s2] "=&x"(s2), [s3] "=&x"(s3), [s4] "=&x"(s4), [s5] "=&x"(s5), [s6] "=&x"(s6),   \
                 [s7] "=&x"(s7), [s8] "=&x"(s8), [s9] "=&x"(s9), [s10] "=&x"(s10),                 \
                 [s11] "=&x"(s11), [b] "=&x"(b), [c] "=&x"(c), [d] "=&x"(d), [p] "=&x"(p)          \
               : [m] "m"(kLowBits)                                                                 \
               : "memory", "cc")

// Sums that start from values of their own, and sums that the first products set.
#define ARK_STARTED(rows, low, high, next)                                                   \
  rows(ARK_START_ROW, "0") "1:\n\t" low rows(ARK_ADD_ROW, "24") high rows(ARK_ADD_ROW, "48") \
      next("48") "jnz 1b\n\t"
#define ARK_SET(rows, low, high, next)                                                           \
  low rows(ARK_SET_ROW, "0") high rows(ARK_ADD_ROW, "24") next("48") "jz 2f\n\t1:\n\t" low rows( \
      ARK_ADD_ROW, "0") high rows(ARK_ADD_ROW, "24") next("48") "jnz 1b\n\t2:\n\t"
#define ARK_SPAN(rows)                                                             \
  if constexpr (kStarts && kPacked) {                                              \
    ARK_SUMS(ARK_STARTED(rows, ARK_PACKED_LOW, ARK_PACKED_HIGH, ARK_PACKED_NEXT)); \
  } else if constexpr (kStarts) {                                                  \
    ARK_SUMS(ARK_STARTED(rows, ARK_LOW, ARK_HIGH, ARK_NEXT));                      \
  } else if constexpr (kPacked) {                                                  \
    ARK_SUMS(ARK_SET(rows, ARK_PACKED_LOW, ARK_PACKED_HIGH, ARK_PACKED_NEXT));     \
  } else {                                                                         \
    ARK_SUMS(ARK_SET(rows, ARK_LOW, ARK_HIGH, ARK_NEXT));                          \
  }

// The products of the first R rows with a span of inputs, of which there are a multiple of 8: dot
// is set to them, or they are added to it. In assembly: GCC starts all products of a step before it
// adds the first, and then spills.
template <bool kStarts, bool kPacked, int R, bool kFirst>
ARK_INLINE void dot_span(const uint8_t* weights, const int8_t* x, int64_t inputs, I* dot) {
  __m256i s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11;
  __m256i b, c, d, p;
  if constexpr (R == 1) {
    ARK_SPAN(ARK_ROWS1);
  } else if constexpr (R == 2) {
    ARK_SPAN(ARK_ROWS2);
  } else if constexpr (R == 3) {
    ARK_SPAN(ARK_ROWS3);
  } else if constexpr (R == 4) {
    ARK_SPAN(ARK_ROWS4);
  } else if constexpr (R == 5) {
    ARK_SPAN(ARK_ROWS5);
  } else {
    ARK_SPAN(ARK_ROWS6);
  }
  __m256i ones = _mm256_set1_epi16(1);
  auto widen = [&](int r, __m256i low, __m256i high) {
    I sums = {_mm256_madd_epi16(low, ones), _mm256_madd_epi16(high, ones)};
    dot[r] = kFirst ? sums : add(dot[r], sums);
  };
  widen(0, s0, s1);
  if constexpr (R > 1) widen(1, s2, s3);
  if constexpr (R > 2) widen(2, s4, s5);
  if constexpr (R > 3) widen(3, s6, s7);
  if constexpr (R > 4) widen(4, s8, s9);
  if constexpr (R > 5) widen(5, s10, s11);
}
#undef ARK_ADD_ROW
#undef ARK_SET_ROW
#undef ARK_START_ROW
#undef ARK_ROWS1
#undef ARK_ROWS2
#undef ARK_ROWS3
#undef ARK_ROWS4
#undef ARK_ROWS5
#undef ARK_ROWS6
#undef ARK_LOW
#undef ARK_HIGH
#undef ARK_PACKED
#undef ARK_MASK
#undef ARK_PACKED_LOW
#undef ARK_PACKED_HIGH
#undef ARK_PACKED_NEXT
#undef ARK_NEXT
#undef ARK_SUMS
#undef ARK_STARTED
#undef ARK_SET
#undef ARK_SPAN

template <DType kCodes, Offsets kKind, int R, bool kPacked, typename Begin, typename Finish>
ARK_INLINE void multiply_tile(const uint8_t* weights, int64_t, const int8_t* x, int64_t inputs,
                              Begin begin, Finish finish) {
  constexpr int64_t kStepBytes = kTileRows * kTileStep;
  I dot[R];
  if (kCodes == DType::i8) {
    for (int r = 0; r < R; r++) dot[r] = begin(r);
    for (int64_t k = 0; k < inputs; k += 4, weights += 64, x += kStepBytes) {
      B bytes = load_bytes(weights);
      for (int r = 0; r < R; r++) dot[r] = dot_i8(dot[r], bytes, x + r * 4);
    }
    for (int r = 0; r < R; r++) finish(r, dot[r]);
    return;
  }
  constexpr bool kStarts = start_span(kCodes, kKind) != 0;
  constexpr int64_t kSpan = kStarts ? start_span(kCodes, kKind) : 4 * kDotLimit;
  dot_span<kStarts, kPacked, R, true>(weights, x, smaller(kSpan, inputs), dot);
  if (inputs <= kSpan) {  // apart, so that the products stay in registers
    for (int r = 0; r < R; r++) finish(r, add(begin(r), dot[r]));
    return;
  }
  for (int64_t k = kSpan; k < inputs; k += kSpan) {
    weights += kSpan * (kPacked ? 8 : kLanes);
    x += (kStarts ? kStepBytes : 0) + kSpan * kTileRows;
    dot_span<kStarts, kPacked, R, false>(weights, x, smaller(kSpan, inputs - k), dot);
  }
  for (int r = 0; r < R; r++) finish(r, add(begin(r), dot[r]));
}

ARK_KERNEL_END
