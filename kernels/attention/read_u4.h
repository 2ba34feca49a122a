// Values of 4-bit caches (kv_layout.h) as floats: once for all the rows that see a block.
#pragma once

#include "kernel_check.h"
#include "kv_layout.h"

ARK_KERNEL_BEGIN

// The first tokens' values as [tokens][padded], padded being head_dim rounded up to 16.
inline void read_values_u4(const char* block, int64_t tokens, int64_t head_dim, int64_t padded,
                           float* out) {
  int64_t groups = kv_padded(head_dim, kKvGroup) / kKvGroup;
  const uint8_t* codes = reinterpret_cast<const uint8_t*>(block);
  const Half* scales = reinterpret_cast<const Half*>(block + groups * kKvBlock * kKvGroup / 2);
  const Half* minimums = scales + groups * kKvBlock;
  int64_t t = 0;
  int64_t g = 0;
  for (int64_t first = 0; first < tokens * groups; first += kLanes) {
    float scale[kLanes], minimum[kLanes];
    store(scale, load(scales + first));
    store(minimum, load(minimums + first));
    for (int64_t i = 0; i < kLanes && t < tokens; i++) {
      I bytes = load_u8(codes + (first + i) * (kKvGroup / 2));
      float* to = out + t * padded + g * kKvGroup;
      store(to, fma(to_float(bits_and(bytes, 15)), set(scale[i]), set(minimum[i])));
      // The group's second half lies beyond padded when head_dim has no dimension in it.
      if (g * kKvGroup + kLanes < padded) {
        store(to + kLanes, fma(to_float(shr<4>(bytes)), set(scale[i]), set(minimum[i])));
      }
      if (++g == groups) {
        g = 0;
        t++;
      }
    }
  }
}

ARK_KERNEL_END
