// gemm_tile.h with AVX2: six rows by one panel, twelve running sums of 16-bit pairs.
#pragma once

#include "panels.h"

ARK_KERNEL_BEGIN

constexpr int kTileRows = 6;
constexpr int kTilePanels = 1;
constexpr int64_t kBlockInputs = 1024;  // 16 KiB of unpacked codes: half of the first-level cache
constexpr int kTileStep = 4;

ARK_INLINE void unpack_step(B first, B second, uint8_t* to) {
  memcpy(to, &first, 64);
  memcpy(to + 64, &second, 64);
}

// Sums of pairs fit in 16 bits for longer when codes count from their middle, 8 of 4-bit codes: a
// pair is then at most 2 * 8 * 127, and 16 of them 32512. Codes stay unsigned, as maddubs wants
// them, and a sum starts from what they are too large by; that it wraps on its way does no harm.
ARK_INLINE int32_t middle_code(DType codes) {
  return codes == DType::u4 ? 8 : codes == DType::u2 ? 1 : 0;
}
constexpr int64_t kStartSpan = 64;

// Of up to kStartSpan inputs: what both pairs of the four side by side start from.
ARK_INLINE int32_t start_of(const int8_t* x, int64_t n, int32_t middle) {
  int32_t low = 0, high = 0;
  for (int64_t k = 0; k < n; k += 4) {
    low -= x[k] + x[k + 1];
    high -= x[k + 2] + x[k + 3];
  }
  return static_cast<int32_t>(static_cast<uint32_t>(high * middle) << 16 |
                              static_cast<uint16_t>(low * middle));
}

// Six rows' sums of pairs are in ymm0 to ymm11, two of each; codes of four inputs are in ymm12 and
// ymm13. at is where one row's four inputs are. Both products come before both sums: 6 % faster
// than in turns on Zen 3.
#define ARK_ROW(at, low, high)               \
  "vpbroadcastd " at                         \
  "(%[x]), %%ymm14\n\t"                      \
  "vpmaddubsw %%ymm14, %%ymm12, %%ymm15\n\t" \
  "vpmaddubsw %%ymm14, %%ymm13, %%ymm14\n\t" \
  "vpaddw %%ymm15, %%ymm" low ", %%ymm" low  \
  "\n\t"                                     \
  "vpaddw %%ymm14, %%ymm" high ", %%ymm" high "\n\t"
#define ARK_START(at, low, high)         \
  "vpbroadcastd " at "(%[x]), %%ymm" low \
  "\n\t"                                 \
  "vmovdqa %%ymm" low ", %%ymm" high "\n\t"
#define ARK_ROWS(f, x)                                                             \
  f(x "+0", "0", "1") f(x "+4", "2", "3") f(x "+8", "4", "5") f(x "+12", "6", "7") \
      f(x "+16", "8", "9") f(x "+20", "10", "11")
#define ARK_CODES(at) "vmovdqa " at "(%[w]), %%ymm12\n\tvmovdqa 32+" at "(%[w]), %%ymm13\n\t"
#define ARK_WIDEN(n) "vpmaddwd %%ymm12, %%ymm" n ", %%ymm" n "\n\t"
#define ARK_ADD(n) "vpaddd 32*" n "(%[dot]), %%ymm" n ", %%ymm" n "\n\t"
#define ARK_STORE(n) "vmovdqa %%ymm" n ", 32*" n "(%[dot])\n\t"
#define ARK_SUMS(f) \
  f("0") f("1") f("2") f("3") f("4") f("5") f("6") f("7") f("8") f("9") f("10") f("11")
#define ARK_SPAN(add) \
  asm volatile(                                                                              \
      ARK_ROWS(ARK_START, "0")                                                               \
      "1:\n\t"                                                                               \
      ARK_CODES("0") ARK_ROWS(ARK_ROW, "24") ARK_CODES("64") ARK_ROWS(ARK_ROW, "48")         \
      "add $128, %[w]\n\tadd $48, %[x]\n\tsub $8, %[n]\n\tjnz 1b\n\t"                        \
      "vpcmpeqw %%ymm12, %%ymm12, %%ymm12\n\tvpsrlw $15, %%ymm12, %%ymm12\n\t"               \
      ARK_SUMS(ARK_WIDEN) add ARK_SUMS(ARK_STORE)                                            \
      : [w] "+r"(weights), [x] "+r"(x), [n] "+r"(inputs)                                     \
      : [dot] "r"(dot)                                                                       \
      : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",      \
        "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")

// The dot products of six rows with a span of codes, or these added to dot. In assembly: GCC starts
// all products of a step before it adds the first, and then spills the sums.
ARK_INLINE void dot_span(const uint8_t* weights, const int8_t* x, int64_t inputs, I* dot) {
  ARK_SPAN("");
}
ARK_INLINE void add_span(const uint8_t* weights, const int8_t* x, int64_t inputs, I* dot) {
  ARK_SPAN(ARK_SUMS(ARK_ADD));
}
#undef ARK_ROW
#undef ARK_START
#undef ARK_ROWS
#undef ARK_CODES
#undef ARK_WIDEN
#undef ARK_ADD
#undef ARK_STORE
#undef ARK_SUMS
#undef ARK_SPAN

template <DType kCodes, typename Begin, typename Finish>
ARK_INLINE void multiply_tile(const uint8_t* weights, int64_t, const int8_t* x, int64_t inputs,
                              Begin begin, Finish finish) {
  constexpr int64_t kStepBytes = kTileRows * kTileStep;
  I dot[kTileRows];
  if (kCodes == DType::i8) {
    for (int r = 0; r < kTileRows; r++) dot[r] = izero();
    for (int64_t k = 0; k < inputs; k += 4, weights += 64, x += kStepBytes) {
      if (k % kStartSpan == 0) x += kStepBytes;
      B bytes = load_bytes(weights);
      for (int r = 0; r < kTileRows; r++) dot[r] = dot_i8(dot[r], bytes, x + r * 4);
    }
  } else {
    dot_span(weights, x, smaller(kStartSpan, inputs), dot);
    for (int64_t k = kStartSpan; k < inputs; k += kStartSpan) {
      weights += kStartSpan * kLanes;
      x += kStepBytes + kStartSpan * kTileRows;
      add_span(weights, x, smaller(kStartSpan, inputs - k), dot);
    }
  }
  for (int r = 0; r < kTileRows; r++) finish(r, add(begin(r), dot[r]));
}

ARK_KERNEL_END
