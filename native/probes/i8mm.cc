// Whether the compiler and its assembler accept what the i8mm kernels use.
#include <arm_neon.h>

int32x4_t probe(int32x4_t sum, int8x16_t rows, int8x16_t outputs) {
  return vmmlaq_s32(sum, rows, outputs);
}
