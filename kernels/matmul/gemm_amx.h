// gemm_tile.h with AMX: a tile instruction multiplies 16 rows by 16 outputs over up to 64 inputs.
#pragma once

#if defined(ARK_SIMDE)
#include "../../native/tests/emulated_amx.h"
#endif
#include "panels.h"

ARK_KERNEL_BEGIN

// Four tile registers of sums, two of rows, two of codes.
constexpr int kTileRows = 32;
constexpr int kTilePanels = 2;
constexpr int64_t kBlockInputs = 512;
constexpr int kTileStep = 4;

ARK_INLINE void unpack_step(B first, B second, uint8_t* to) {
  memcpy(to, &first, 64);
  memcpy(to + 64, &second, 64);
}
ARK_INLINE B tile_bytes(B codes) { return flip_signs(codes); }

// Inputs per instruction: a group is whole instructions.
ARK_INLINE int64_t row_step(int64_t group) {
  int64_t step = 64;
  while (group % step != 0) step -= 4;
  return step;
}

struct TileShapes {
  uint8_t palette;
  uint8_t unused[15];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

inline void begin_tiles(int64_t group) {
  int64_t step = row_step(group);
  TileShapes shapes = {};
  shapes.palette = 1;
  for (int i = 0; i < 8; i++) {
    shapes.row_bytes[i] = static_cast<uint16_t>(i == 4 || i == 5 ? step : 64);
    shapes.rows[i] = static_cast<uint8_t>(i >= 6 ? step / 4 : 16);
  }
  // The compiler does not know that the instruction reads all of it.
  asm volatile("" : : "r"(&shapes) : "memory");
  _tile_loadconfig(&shapes);
}
inline void end_tiles() { _tile_release(); }

template <DType kCodes>
ARK_INLINE void dot_tile(const uint8_t* weights, int64_t apart, const int8_t* x, int64_t inputs,
                         I* dot) {
  constexpr int64_t kRowBytes = kTilePanels * sizeof(I);
  char* sums = reinterpret_cast<char*>(dot);
  char* lower = sums + 16 * kRowBytes;
  int64_t step = row_step(inputs);
  // The compiler does not know what the instructions read.
  asm volatile("" : : : "memory");
  _tile_loadd(0, sums, kRowBytes);
  _tile_loadd(1, sums + 64, kRowBytes);
  _tile_loadd(2, lower, kRowBytes);
  _tile_loadd(3, lower + 64, kRowBytes);
  for (int64_t k = 0; k < inputs; k += step, weights += 16 * step, x += kTileRows * step) {
    _tile_loadd(4, x, step);
    _tile_loadd(6, weights, 64);
    _tile_loadd(7, weights + apart, 64);
    _tile_dpbsud(0, 4, 6);
    _tile_loadd(5, x + 16 * step, step);
    _tile_dpbsud(1, 4, 7);
    _tile_dpbsud(2, 5, 6);
    _tile_dpbsud(3, 5, 7);
  }
  _tile_stored(0, sums, kRowBytes);
  _tile_stored(1, sums + 64, kRowBytes);
  _tile_stored(2, lower, kRowBytes);
  _tile_stored(3, lower + 64, kRowBytes);
}

ARK_KERNEL_END
