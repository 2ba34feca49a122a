// gemm_tile.h with VNNI: dpbusd adds four products to each 32-bit sum, so sums stay in registers
// from the first input of a group to the last.
#pragma once

#include "panels.h"

ARK_KERNEL_BEGIN

#if defined(ARK_ISA_avxvnni)
// 12 sums, both halves of a panel's codes and one broadcast: 15 of 16 registers.
constexpr int kTileRows = 6;
constexpr int kTilePanels = 1;
constexpr int64_t kBlockInputs = 1024;
#else
// 24 sums, the codes of four panels and one broadcast: 29 of 32 registers.
constexpr int kTileRows = 6;
constexpr int kTilePanels = 4;
constexpr int64_t kBlockInputs = 512;
#endif
constexpr int kTileStep = 4;

ARK_INLINE void unpack_step(B first, B second, uint8_t* to) {
  memcpy(to, &first, 64);
  memcpy(to + 64, &second, 64);
}
ARK_INLINE B tile_bytes(B codes) { return flip_signs(codes); }

// Sums are passed by value, and added to in assembler: what a pointer leads to stays in memory, and
// left to itself GCC copies each sum around.
#if defined(ARK_ISA_avxvnni)
constexpr int kHalves = 2;  // registers per panel
using Register = __m256i;
ARK_INLINE Register load_register(const void* p) { return load256(p); }
ARK_INLINE Register broadcast(int32_t word) { return _mm256_set1_epi32(word); }
ARK_INLINE void save(I* to, const Register* sum) { *to = {sum[0], sum[1]}; }
ARK_INLINE Register add_products(Register sum, Register codes, Register x) {
#if defined(ARK_SIMDE)
  return _mm256_dpbusd_avx_epi32(sum, codes, x);
#else
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(codes), "x"(x));
  return sum;
#endif
}
#else
constexpr int kHalves = 1;
using Register = __m512i;
ARK_INLINE Register load_register(const void* p) { return load512(p); }
ARK_INLINE Register broadcast(int32_t word) { return _mm512_set1_epi32(word); }
ARK_INLINE void save(I* to, const Register* sum) { *to = {sum[0]}; }
ARK_INLINE Register add_products(Register sum, Register codes, Register x) {
#if defined(ARK_SIMDE)
  return _mm512_dpbusd_epi32(sum, codes, x);
#else
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(x));
  return sum;
#endif
}
#endif

// AVX2's 16 registers hold nothing besides: inlined, what callers keep there pushes a sum out.
#if defined(ARK_ISA_avxvnni)
#define ARK_TILE __attribute__((noinline)) inline
#else
#define ARK_TILE ARK_INLINE
#endif
template <DType kCodes>
ARK_TILE void dot_tile(const uint8_t* weights, int64_t apart, const int8_t* x, int64_t inputs,
                       I* dot) {
  constexpr int kWide = kTilePanels * kHalves;
  // In two dimensions: GCC unrolls no loop of more than 16 turns, and what such a loop walks over
  // stays in memory.
  Register sum[kTileRows][kWide];
  for (int r = 0; r < kTileRows; r++) {
    for (int i = 0; i < kWide; i++) {
      sum[r][i] = load_register(reinterpret_cast<const Register*>(dot) + r * kWide + i);
    }
  }
  ARK_ROLLED
  for (int64_t k = 0; k < inputs; k += 4, weights += 64, x += kTileRows * 4) {
    Register codes[kWide];
    for (int i = 0; i < kWide; i++) {
      codes[i] = load_register(weights + i / kHalves * apart + i % kHalves * 32);
    }
    for (int r = 0; r < kTileRows; r++) {
      Register four = broadcast(load_word(x + r * 4));
      for (int i = 0; i < kWide; i++) sum[r][i] = add_products(sum[r][i], codes[i], four);
    }
  }
  for (int r = 0; r < kTileRows; r++) {
    for (int c = 0; c < kTilePanels; c++) save(dot + r * kTilePanels + c, sum[r] + c * kHalves);
  }
}
#undef ARK_TILE

ARK_KERNEL_END
