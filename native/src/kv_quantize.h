// Writing keys and values into the caches' layouts (docs/bundle.md, kv_layout.h), and reading keys.
// A block holds 64 tokens of one head.
#pragma once

#include "kv_layout.h"
#include "simd.h"

ARK_KERNEL_BEGIN

constexpr float kMostHalf = 65504.0f;

// The smallest and the largest of n numbers.
inline void find_range(const float* x, int64_t n, float* low, float* high) {
  V most = set(-kInfinity);
  V least = set(-kInfinity);  // of -x
  for (int64_t j = 0; j < n; j += kLanes) {
    uint32_t lanes = n - j >= kLanes ? 0xffff : (1u << (n - j)) - 1;
    V v = load_upto(x + j, n - j);
    most = max(select(lanes, v, set(-kInfinity)), most);
    least = max(select(lanes, sub(zero(), v), set(-kInfinity)), least);
  }
  *high = largest(most);
  *low = 0.0f - largest(least);  // never -0
}

// (x - minimum) / scale to the nearest, halves to even; 0 when the scale is.
inline I codes_of(V x, float minimum, float scale, float low, float high) {
  if (!(scale > 0)) return izero();
  V code = div(sub(x, set(minimum)), set(scale));
  return round_to_int(min(max(code, set(low)), set(high)));
}

inline float int8_scale(const float* x, int64_t n) {
  float low, high;
  find_range(x, n, &low, &high);
  return (high > -low ? high : 0.0f - low) / 127.0f;
}

// Up to 16 codes; those beyond n are 0.
inline void int8_codes(const float* x, int64_t n, float scale, int8_t* codes) {
  store_i8(codes, codes_of(load_upto(x, n), 0, scale, -127, 127));
}

// Up to kKvGroup dimensions of one token; codes beyond n are 0.
struct NibbleGroup {
  int8_t codes[kKvGroup];
  uint16_t scale, minimum;  // fp16
};

inline uint16_t half_of(float value, float* rounded) {
  Half half;
  store_part(&half, set(value), 1);
  *rounded = load_one(&half);
  return half.bits;
}

inline NibbleGroup quantize_nibbles(const float* x, int64_t n) {
  NibbleGroup group;
  float low, high, minimum, scale;
  find_range(x, n, &low, &high);
  low = low < -kMostHalf ? -kMostHalf : low > kMostHalf ? kMostHalf : low;
  group.minimum = half_of(low, &minimum);
  // From the minimum as stored, so that its rounding costs the largest number nothing.
  float step = (high - minimum) / 15.0f;
  group.scale = half_of(step > kMostHalf ? kMostHalf : step > 0 ? step : 0, &scale);
  memset(group.codes, 0, sizeof(group.codes));
  for (int64_t j = 0; j < n; j += kLanes) {
    int8_t codes[kLanes];
    store_i8(codes, codes_of(load_upto(x + j, n - j), minimum, scale, 0, 15));
    memcpy(group.codes + j, codes, static_cast<size_t>(smaller(kLanes, n - j)));
  }
  return group;
}

// ---- one token into a block -----------------------------------------------------------------

template <typename T>
inline void write_key_floats(char* block, int64_t slot, const float* x, int64_t head_dim) {
  T* out = reinterpret_cast<T*>(block) + slot;
  for (int64_t j = 0; j < head_dim; j += kLanes) {
    int64_t n = smaller(kLanes, head_dim - j);
    T lanes[kLanes];
    store(lanes, load_upto(x + j, n));
    for (int64_t i = 0; i < n; i++) out[(j + i) * kKvBlock] = lanes[i];
  }
}

inline void write_key_i8(char* block, int64_t slot, const float* x, int64_t head_dim) {
  float scale = int8_scale(x, head_dim);
  for (int64_t j = 0; j < head_dim; j += kLanes) {
    int8_t codes[kLanes];
    int8_codes(x + j, head_dim - j, scale, codes);
    for (int64_t i = 0; i < kLanes && j + i < head_dim; i += 4) {
      memcpy(block + (j + i) * kKvBlock + slot * 4, codes + i, 4);
    }
  }
  memcpy(block + kv_padded(head_dim, 4) * kKvBlock + slot * 4, &scale, sizeof(scale));
}

inline void write_key_u4(char* block, int64_t slot, const float* x, int64_t head_dim) {
  int64_t groups = kv_padded(head_dim, kKvGroup) / kKvGroup;
  uint16_t* scales = reinterpret_cast<uint16_t*>(block + groups * kKvGroup * kKvBlock / 2);
  uint16_t* minimums = scales + groups * kKvBlock;
  int shift = slot < kKvBlock / 2 ? 0 : 4;
  for (int64_t g = 0; g < groups; g++) {
    NibbleGroup group =
        quantize_nibbles(x + g * kKvGroup, smaller(kKvGroup, head_dim - g * kKvGroup));
    char* bytes = block + g * kKvGroup * (kKvBlock / 2) + slot % (kKvBlock / 2);
    for (int64_t i = 0; i < kKvGroup; i++) {
      char* byte = bytes + i * (kKvBlock / 2);
      *byte = static_cast<char>((*byte & (0xf0 >> shift)) | group.codes[i] << shift);
    }
    scales[g * kKvBlock + slot] = group.scale;
    minimums[g * kKvBlock + slot] = group.minimum;
  }
}

inline void write_key(DType type, char* block, int64_t slot, const float* x, int64_t head_dim) {
  if (type == DType::f32) return write_key_floats<float>(block, slot, x, head_dim);
  if (type == DType::f16) return write_key_floats<Half>(block, slot, x, head_dim);
  if (type == DType::i8) return write_key_i8(block, slot, x, head_dim);
  write_key_u4(block, slot, x, head_dim);
}

template <typename T>
inline void write_value_floats(char* block, int64_t slot, const float* x, int64_t head_dim) {
  T* out = reinterpret_cast<T*>(block) + slot * head_dim;
  for (int64_t j = 0; j < head_dim; j += kLanes) {
    store_upto(out + j, load_upto(x + j, head_dim - j), head_dim - j);
  }
}

inline void write_value_i8(char* block, int64_t slot, const float* x, int64_t head_dim) {
  int64_t padded = kv_padded(head_dim, 16);
  float scale = int8_scale(x, head_dim);
  char* out = block + slot / 4 * 4 * padded + slot % 4;
  for (int64_t j = 0; j < padded; j += kLanes) {
    int8_t codes[kLanes];
    int8_codes(x + j, head_dim - j, scale, codes);
    for (int64_t i = 0; i < kLanes; i++) out[(j + i) * 4] = static_cast<char>(codes[i]);
  }
  memcpy(block + kKvBlock * padded + slot * 4, &scale, sizeof(scale));
}

inline void write_value_u4(char* block, int64_t slot, const float* x, int64_t head_dim) {
  int64_t groups = kv_padded(head_dim, kKvGroup) / kKvGroup;
  uint16_t* scales = reinterpret_cast<uint16_t*>(block + groups * kKvGroup * kKvBlock / 2);
  uint16_t* minimums = scales + groups * kKvBlock;
  for (int64_t g = 0; g < groups; g++) {
    NibbleGroup group =
        quantize_nibbles(x + g * kKvGroup, smaller(kKvGroup, head_dim - g * kKvGroup));
    char* out = block + (slot * groups + g) * (kKvGroup / 2);
    for (int64_t i = 0; i < kKvGroup / 2; i++) {
      out[i] = static_cast<char>(group.codes[i] | group.codes[i + kKvGroup / 2] << 4);
    }
    scales[slot * groups + g] = group.scale;
    minimums[slot * groups + g] = group.minimum;
  }
}

inline void write_value(DType type, char* block, int64_t slot, const float* x, int64_t head_dim) {
  if (type == DType::f32) return write_value_floats<float>(block, slot, x, head_dim);
  if (type == DType::f16) return write_value_floats<Half>(block, slot, x, head_dim);
  if (type == DType::i8) return write_value_i8(block, slot, x, head_dim);
  write_value_u4(block, slot, x, head_dim);
}

// ---- a block of keys as floats -----------------------------------------------------------------

inline void read_keys_i8(const char* block, int64_t head_dim, float* out) {
  const char* scales = block + kv_padded(head_dim, 4) * kKvBlock;
  for (int64_t t = 0; t < kKvBlock; t += kLanes) {
    V scale = load(reinterpret_cast<const float*>(scales) + t);
    for (int64_t j = 0; j < head_dim; j++) {
      // The byte of this dimension moves to the top of its 32 bits, and down with its sign.
      I four = load_words(block + j / 4 * 4 * kKvBlock + t * 4);
      I code = j % 4 == 0   ? sar<24>(shl<24>(four))
               : j % 4 == 1 ? sar<24>(shl<16>(four))
               : j % 4 == 2 ? sar<24>(shl<8>(four))
                            : sar<24>(four);
      store(out + j * kKvBlock + t, mul(scale, to_float(code)));
    }
  }
}

inline void read_keys_u4(const char* block, int64_t head_dim, float* out) {
  constexpr int64_t kHalf = kKvBlock / 2;
  int64_t groups = kv_padded(head_dim, kKvGroup) / kKvGroup;
  const Half* scales = reinterpret_cast<const Half*>(block + groups * kKvGroup * kHalf);
  const Half* minimums = scales + groups * kKvBlock;
  for (int64_t j = 0; j < head_dim; j++) {
    const Half* scale = scales + j / kKvGroup * kKvBlock;
    const Half* minimum = minimums + j / kKvGroup * kKvBlock;
    for (int64_t t = 0; t < kHalf; t += kLanes) {
      I bytes = load_u8(reinterpret_cast<const uint8_t*>(block) + j * kHalf + t);
      V low = to_float(bits_and(bytes, 15));
      V high = to_float(shr<4>(bytes));
      float* at = out + j * kKvBlock + t;
      store(at, fma(load(scale + t), low, load(minimum + t)));
      store(at + kHalf, fma(load(scale + t + kHalf), high, load(minimum + t + kHalf)));
    }
  }
}

// 64 keys as [head_dim][64]: those of the cache itself, or written to buffer.
inline const float* read_keys(DType type, const char* block, int64_t head_dim, float* buffer) {
  if (type == DType::f32) return reinterpret_cast<const float*>(block);
  if (type == DType::i8) {
    read_keys_i8(block, head_dim, buffer);
  } else if (type == DType::u4) {
    read_keys_u4(block, head_dim, buffer);
  } else {
    const Half* halves = reinterpret_cast<const Half*>(block);
    for (int64_t i = 0; i < head_dim * kKvBlock; i += kLanes) store(buffer + i, load(halves + i));
  }
  return buffer;
}

ARK_KERNEL_END
