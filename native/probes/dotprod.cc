// Whether the compiler and its assembler accept what the dotprod kernels use.
#include <arm_neon.h>

int32x4_t probe(int32x4_t sum, int8x16_t codes, int8x16_t x) {
  return vdotq_laneq_s32(vdotq_s32(sum, codes, x), codes, x, 3);
}
