// Whether the compiler and its assembler accept what the amx kernels use.
#include <immintrin.h>

void probe(const void* shapes, const void* from, void* to) {
  _tile_loadconfig(shapes);
  _tile_loadd(0, from, 64);
  _tile_loadd(1, from, 64);
  _tile_loadd(2, from, 64);
  _tile_dpbsud(0, 1, 2);
  _tile_stored(0, to, 64);
  _tile_release();
}
