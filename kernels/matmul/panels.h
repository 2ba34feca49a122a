// Packed weights (docs/bundle.md): panels of 16 outputs, and what their codes mean.
#pragma once

#include "kernel_check.h"

ARK_KERNEL_BEGIN

enum class Offsets { symmetric, zero_point, minimum };

struct Weights {
  const char* codes;
  const char* scales;
  const char* offsets;
  DType type;
  DType scale_type;
  DType offset_type;
  Offsets kind;
  int64_t outputs;
  int64_t inputs;
  int64_t group;    // inputs per scale; all of them for float weights
  int64_t gated;    // panels of a gate, which come before those it gates; 0 without one
  int64_t groups;   // 1 for float weights
  int64_t x_group;  // inputs per scale of the activations, which divides group
  int64_t x_groups;
};

inline bool is_float_type(DType t) {
  return t == DType::f32 || t == DType::f16 || t == DType::bf16;
}

inline const char* check_weights(const Operand& codes, const Operand& scales,
                                 const Operand& offsets) {
  if (!is_present(codes) || codes.rank != 2 || codes.shape[0] < 1 || codes.shape[1] < 1 ||
      codes.shape[0] >= kMostElements || codes.shape[1] >= kMostElements) {
    return "codes must be a matrix [outputs, inputs]";
  }
  if (is_float_type(codes.dtype)) {
    bool plain = !is_present(scales) && !is_present(offsets);
    return plain ? nullptr : "float weights have no scales or offsets";
  }
  if (codes.dtype != DType::i8 && codes.dtype != DType::u4 && codes.dtype != DType::u2) {
    return "codes of an unknown dtype";
  }
  if (!is_present(scales) || scales.rank != 2 || !is_half_or_float(scales.dtype) ||
      scales.shape[0] != codes.shape[0] || scales.shape[1] < 1) {
    return "scales must be fp16 or fp32 [outputs, groups]";
  }
  int64_t group = codes.shape[1] / scales.shape[1];
  if (codes.dtype == DType::u2) {
    if (is_present(offsets)) return "2-bit codes have no offsets";
    bool whole = group * scales.shape[1] == codes.shape[1] && group > 0 && group % 16 == 0;
    return whole ? nullptr : "inputs must be whole groups of a multiple of 16";
  }
  // The sum over a group of products of two int8 has to fit in 32 bits.
  if (group * scales.shape[1] != codes.shape[1] || group > 65536 || group % 8 != 0) {
    return "inputs must be whole groups of a multiple of 8, at most 65536";
  }
  if (!is_present(offsets)) return nullptr;
  DType zero_type = codes.dtype == DType::u4 ? DType::u8 : DType::i8;
  bool known = offsets.dtype == zero_type || is_half_or_float(offsets.dtype);
  if (offsets.rank != 2 || offsets.shape[0] != scales.shape[0] ||
      offsets.shape[1] != scales.shape[1] || !known) {
    return "offsets must be zero points or minimums [outputs, groups]";
  }
  return nullptr;
}

// The scale of a ternary weight may stand for a whole row; that of the activations never does.
inline int64_t activation_group(DType type, int64_t group) {
  constexpr int64_t kMost = 128;
  if (type != DType::u2 || group <= kMost) return group;
  int64_t size = kMost;
  while (group % size != 0) size -= 16;
  return size;
}

inline Weights read_weights(const Operand& codes, const Operand& scales, const Operand& offsets) {
  Weights w = {};
  w.codes = static_cast<const char*>(codes.data);
  w.type = codes.dtype;
  w.outputs = codes.shape[0];
  w.inputs = codes.shape[1];
  w.groups = is_present(scales) ? scales.shape[1] : 1;
  w.group = w.inputs / w.groups;
  w.x_group = activation_group(w.type, w.group);
  w.x_groups = w.inputs / w.x_group;
  w.kind = Offsets::symmetric;
  if (is_present(scales)) {
    w.scales = static_cast<const char*>(scales.data);
    w.scale_type = scales.dtype;
  }
  if (is_present(offsets)) {
    w.offsets = static_cast<const char*>(offsets.data);
    w.offset_type = offsets.dtype;
    w.kind = is_half_or_float(offsets.dtype) ? Offsets::minimum : Offsets::zero_point;
  }
  return w;
}

ARK_INLINE int64_t panel_bytes(const Weights& w) {
  if (w.type == DType::u2) return w.inputs * 4;
  if (w.type == DType::u4) return w.inputs * 8;
  return w.inputs * (w.type == DType::i8 ? 16 : w.type == DType::f32 ? 64 : 32);
}
ARK_INLINE const char* panel(const Weights& w, int64_t index) {
  return w.codes + index * panel_bytes(w);
}

// With a gate its panels and those it gates take turns, so that both are at hand together.
ARK_INLINE int64_t panel_at(const Weights& w, int64_t place) {
  return w.gated ? place / 2 + place % 2 * w.gated : place;
}
// How far apart two panels of neighbouring places are, of which the first is even.
ARK_INLINE int64_t pair_distance(const Weights& w) { return w.gated ? w.gated : 1; }

ARK_INLINE V load_half_or_float(const char* p, DType type, int64_t index) {
  if (type == DType::f16) return load(reinterpret_cast<const Half*>(p) + index);
  return load(reinterpret_cast<const float*>(p) + index);
}
// Of 16 outputs in one group; slot is panel * groups + group.
ARK_INLINE V load_scales(const Weights& w, int64_t slot) {
  return load_half_or_float(w.scales, w.scale_type, slot * kLanes);
}
ARK_INLINE V load_minimums(const Weights& w, int64_t slot) {
  return load_half_or_float(w.offsets, w.offset_type, slot * kLanes);
}
ARK_INLINE I load_zero_points(const Weights& w, int64_t slot) {
  if (w.type == DType::u4) {
    return load_u8(reinterpret_cast<const uint8_t*>(w.offsets) + slot * kLanes);
  }
  return load_i8(reinterpret_cast<const int8_t*>(w.offsets) + slot * kLanes);
}

// What a stored code is short of the code that a minimum belongs to: 8-bit codes are stored - 128.
ARK_INLINE int32_t minimum_shift(const Weights& w) { return w.type == DType::i8 ? -128 : 0; }
// The code that stands for zero in a symmetric group.
ARK_INLINE int32_t symmetric_zero(const Weights& w) {
  return w.type == DType::u4 ? 8 : w.type == DType::u2 ? 1 : 0;
}

// One code as it is stored, and one float weight.
inline int32_t code_at(const Weights& w, int64_t output, int64_t input) {
  const char* p = panel(w, output / kLanes);
  int64_t lane = output % kLanes;
  if (w.type == DType::i8) {
    return static_cast<int8_t>(p[(input / 4 * kLanes + lane) * 4 + input % 4]);
  }
  if (w.type == DType::u2) {
    uint8_t four = static_cast<uint8_t>(p[(input / 16 * kLanes + lane) * 4 + input % 4]);
    return four >> input % 16 / 4 * 2 & 3;
  }
  uint8_t byte = static_cast<uint8_t>(p[(input / 8 * kLanes + lane) * 4 + input % 4]);
  return input % 8 >= 4 ? byte >> 4 : byte & 15;
}

ARK_KERNEL_END
