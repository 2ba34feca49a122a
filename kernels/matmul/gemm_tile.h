// The integer micro-kernel of products with many rows, and what an instruction set may replace.
//
// A tile is kTileRows rows by kTilePanels panels of 16 outputs, over the inputs of one group:
//   dot_tile<type of the codes>(weights, apart, x, inputs, dot)
// adds to dot, I [kTileRows][kTilePanels], the products of
//   x        int8 [inputs/kTileStep][kTileRows][kTileStep]
//   weights  [kTilePanels], apart bytes from one another, of [inputs/kTileStep][16][kTileStep]:
//            codes as unpack_step wrote them. inputs is a multiple of 8.
// An instruction set with other needs brings a header gemm_<isa>.h that defines, like the generic
// part below, kTileRows, kTilePanels, kTileStep (4, or 8 where eight inputs of an output lie side
// by side), kBlockInputs, unpack_step and dot_tile, and is included here. Everything else
// (arranging activations, unpacking, scales, zero points, fine codes, blocking) follows those
// constants. Integer arithmetic must be exact: a row's bits may not depend on the tile.
#pragma once

#include "panels.h"

#if defined(ARK_ISA_avx2)
#include "gemm_avx2.h"
#elif defined(ARK_ISA_avx512)
#include "gemm_avx512.h"
#elif defined(ARK_ISA_avxvnni) || defined(ARK_ISA_avx512vnni)
#include "gemm_vnni.h"
#elif defined(ARK_ISA_amx)
#include "gemm_amx.h"
#elif defined(ARK_ISA_dotprod)
#include "gemm_dotprod.h"
#elif defined(ARK_ISA_i8mm)
#include "gemm_i8mm.h"
#else

ARK_KERNEL_BEGIN

constexpr int kTileRows = 2;
constexpr int kTilePanels = 1;
constexpr int64_t kBlockInputs = 1024;
constexpr int kTileStep = 4;  // inputs of one output that lie side by side

// Inputs 0..3 and 4..7 of a panel, as unpacked bytes.
ARK_INLINE void unpack_step(B first, B second, uint8_t* to) {
  memcpy(to, &first, 64);
  memcpy(to + 64, &second, 64);
}

template <DType kCodes>
ARK_INLINE void dot_tile(const uint8_t* weights, int64_t apart, const int8_t* x, int64_t inputs,
                         I* dot) {
  constexpr int kCells = kTileRows * kTilePanels;
  if (kCodes == DType::i8) {
    ARK_ROLLED
    for (int64_t k = 0; k < inputs; k += 4, weights += 64, x += kTileRows * 4) {
      for (int c = 0; c < kTilePanels; c++) {
        B bytes = load_bytes(weights + c * apart);
        for (int r = 0; r < kTileRows; r++) {
          int i = r * kTilePanels + c;
          dot[i] = dot_i8(dot[i], bytes, x + r * 4);
        }
      }
    }
    return;
  }
  // D holds kDotLimit products of codes up to 15, so five times as many of codes up to 3.
  constexpr int64_t kTurns = kDotLimit > 65536 ? 65536 : kDotLimit;
  constexpr int64_t kSpan = 4 * kTurns * (kCodes == DType::u2 ? 5 : 1);
  for (int64_t begin = 0; begin < inputs; begin += kSpan) {
    int64_t end = smaller(begin + kSpan, inputs);
    D part[kCells];
    for (int i = 0; i < kCells; i++) part[i] = dot_zero();
    ARK_ROLLED
    for (int64_t k = begin; k < end; k += 4, weights += 64, x += kTileRows * 4) {
      B bytes[kTilePanels];
      for (int c = 0; c < kTilePanels; c++) bytes[c] = load_bytes(weights + c * apart);
      for (int r = 0; r < kTileRows; r++) {
        for (int c = 0; c < kTilePanels; c++) {
          int i = r * kTilePanels + c;
          part[i] = dot_u4(part[i], bytes[c], x + r * 4);
        }
      }
    }
    for (int i = 0; i < kCells; i++) dot[i] = add(dot[i], sum_dot(part[i]));
  }
}

ARK_KERNEL_END

#endif

ARK_KERNEL_BEGIN

#if !defined(ARK_ISA_avxvnni) && !defined(ARK_ISA_avx512vnni) && !defined(ARK_ISA_amx)
// 8-bit codes as unpack_step wants them, kI8Bias larger than they are or not.
ARK_INLINE B tile_bytes(B codes) { return codes; }
#endif

#if !defined(ARK_ISA_avx2)
// An instruction set may want codes counted from their middle, and sums that start from a value of
// its own (start_of) every start_span inputs; 0: no such values lie among a row's inputs.
constexpr int32_t middle_code(DType, Offsets) { return 0; }
constexpr int64_t start_span(DType, Offsets) { return 0; }
ARK_INLINE int32_t start_of(const int8_t*, int64_t, int32_t) { return 0; }

// Whether a tile may be of its first R rows only, and read packed 4-bit codes; and from how many
// rows of those on tiles are faster than few_rows.h, if that is before kFewRows.
constexpr bool kPartialTiles = false;
constexpr int64_t kTiledRows = 1 << 20;

// finish(i, dot) for each cell i of a tile of R rows, with begin(i) added to its products; weights
// are packed or not.
template <DType kCodes, Offsets, int, bool, typename Begin, typename Finish>
ARK_INLINE void multiply_tile(const uint8_t* weights, int64_t apart, const int8_t* x,
                              int64_t inputs, Begin begin, Finish finish) {
  I dot[kTileRows * kTilePanels];
  for (int i = 0; i < kTileRows * kTilePanels; i++) dot[i] = begin(i);
  dot_tile<kCodes>(weights, apart, x, inputs, dot);
  for (int i = 0; i < kTileRows * kTilePanels; i++) finish(i, dot[i]);
}
#endif

#if !defined(ARK_ISA_amx)
// Inputs of a row of activations that lie side by side; a divisor of the group.
ARK_INLINE int64_t row_step(int64_t) { return kTileStep; }
// Around all calls of dot_tile in a thread.
ARK_INLINE void begin_tiles(int64_t) {}
ARK_INLINE void end_tiles() {}
#endif

ARK_KERNEL_END
