// Whether the compiler accepts what the neon kernels use.
#include <arm_neon.h>

int32x4_t probe(int16x8_t sums, int8x16_t x) {
  return vpadalq_s16(vpaddlq_s16(sums), vmovl_high_s8(x));
}
