// The tile registers of AMX on a CPU without them, for tests only. As on the processor, an
// instruction on registers that are not configured, or whose shapes do not fit, is a fault.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

struct ArkTile {
  int rows, bytes;
  int8_t data[16][64];
};
static thread_local ArkTile ark_tiles[8];

static inline void ark_require(bool sound) {
  if (!sound) __builtin_trap();
}
static inline void ark_tile_release() { memset(ark_tiles, 0, sizeof(ark_tiles)); }
static inline void ark_tile_loadconfig(const void* config) {
  uint8_t bytes[64];
  memcpy(bytes, config, sizeof(bytes));
  ark_tile_release();
  ark_require(bytes[0] == 1);
  for (int i = 1; i < 16; i++) ark_require(bytes[i] == 0);
  for (int i = 0; i < 8; i++) {
    ark_tiles[i].bytes = bytes[16 + 2 * i] | bytes[17 + 2 * i] << 8;
    ark_tiles[i].rows = bytes[48 + i];
    ark_require(ark_tiles[i].bytes <= 64 && ark_tiles[i].rows <= 16);
  }
}
static inline void ark_tile_loadd(int tile, const void* base, int64_t stride) {
  ArkTile& t = ark_tiles[tile];
  ark_require(t.rows > 0 && t.bytes > 0);
  memset(t.data, 0, sizeof(t.data));
  for (int r = 0; r < t.rows; r++) {
    memcpy(t.data[r], static_cast<const char*>(base) + r * stride, static_cast<size_t>(t.bytes));
  }
}
static inline void ark_tile_stored(int tile, void* base, int64_t stride) {
  const ArkTile& t = ark_tiles[tile];
  ark_require(t.rows > 0 && t.bytes > 0);
  for (int r = 0; r < t.rows; r++) {
    memcpy(static_cast<char*>(base) + r * stride, t.data[r], static_cast<size_t>(t.bytes));
  }
}
// sums += a (signed) times b (unsigned); b holds four rows of its matrix side by side.
static inline void ark_tile_dpbsud(int sums, int a, int b) {
  ArkTile& to = ark_tiles[sums];
  const ArkTile& x = ark_tiles[a];
  const ArkTile& y = ark_tiles[b];
  ark_require(to.rows == x.rows && to.bytes == y.bytes && x.bytes == 4 * y.rows && y.rows > 0);
  for (int r = 0; r < to.rows; r++) {
    for (int c = 0; c < to.bytes / 4; c++) {
      int32_t sum;
      memcpy(&sum, &to.data[r][4 * c], sizeof(sum));
      for (int k = 0; k < x.bytes; k++) {
        sum += x.data[r][k] * static_cast<uint8_t>(y.data[k / 4][4 * c + k % 4]);
      }
      memcpy(&to.data[r][4 * c], &sum, sizeof(sum));
    }
  }
}

// As macros, because the compiler's header has them as functions or macros already.
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#define _tile_release ark_tile_release
#define _tile_loadconfig ark_tile_loadconfig
#define _tile_loadd ark_tile_loadd
#define _tile_stored ark_tile_stored
#define _tile_dpbsud ark_tile_dpbsud
