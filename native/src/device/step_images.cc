#include "device/step_images.h"

#include <algorithm>
#include <cstring>

#include "error.h"
#include "kv_cache.h"
#include "kv_layout.h"

namespace ark {
namespace {

[[noreturn]] void refuse(const LaunchStep& step, const LaunchOperand& operand,
                         const std::string& found, const std::string& expected) {
  fail(ARK_INVALID_BUNDLE, step.place + ": the operand " + quote(operand.name) + " " + found,
       expected, "compile the bundle again");
}

DType dtype_of(const LaunchPlan& plan) { return plan.half_caches ? DType::f16 : DType::f32; }

}  // namespace

StepImages::StepImages(const LaunchPlan& plan, const LaunchStep& step, const LaunchScalars& scalars,
                       const char* weights, std::mt19937* random)
    : plan_(plan), step_(step), scalars_(scalars), weights_(weights) {
  for (const LaunchOperand& operand : step.operands) {
    if (operand.kind == LaunchOperand::Kind::buffer) add_slot(operand, random);
    if (operand.kind == LaunchOperand::Kind::cache) add_cache(operand, random);
  }
  for (const LaunchOperand& operand : step.operands) {
    if (operand.kind != LaunchOperand::Kind::buffer || operand.is_float) continue;
    for (const LaunchOperand& other : step.operands) {
      if (&other == &operand || other.kind != operand.kind || other.index != operand.index)
        continue;
      refuse(step_, operand, "shares its slot", "indices in a slot of their own");
    }
    if (operand.name == "blocks") choose_blocks(operand);
    const LaunchOperand* codes = step.operand("codes");
    if (operand.name != "ids" || !codes || codes->kind != LaunchOperand::Kind::matrix) continue;
    for (int64_t t = 0; t < scalars.tokens; t++) {
      auto among = static_cast<uint32_t>(codes->matrix.outputs());
      *ids(operand, t) = static_cast<int32_t>((*random)() % among);
    }
  }
}

void StepImages::add_slot(const LaunchOperand& operand, std::mt19937* random) {
  Slot& slot = slots_[operand.index];
  if (slot.stride != 0) {  // two views of one buffer
    if (slot.stride != operand.stride) refuse(step_, operand, "has another stride", "one");
    return;
  }
  slot.stride = operand.stride;
  int64_t bytes = scalars_.tokens * operand.stride * 4;
  if (bytes > plan_.slots[operand.index].evaluate(scalars_)) {
    refuse(step_, operand, "is larger than its slot", "at most as large");
  }
  slot.bytes.resize(static_cast<size_t>(bytes));
  if (!operand.is_float) return;
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < scalars_.tokens * operand.stride; i++) {
    float value = normal(*random);
    std::memcpy(slot.bytes.data() + i * 4, &value, 4);
  }
}

void StepImages::add_cache(const LaunchOperand& operand, std::mt19937* random) {
  const LaunchCache& cache = plan_.caches[operand.index];
  const DType dtype = dtype_of(plan_);
  int64_t bytes = cache.bytes.evaluate(scalars_);
  int64_t block = kv_key_block_bytes(dtype, cache.head_dim);
  Cache& image = caches_[operand.index];
  image.blocks = bytes / (block * cache.kv_heads);
  // Compressed keys are fewer than tokens.
  int64_t least = cache.kind == CacheKind::compressed ? 1 : scalars_.total;
  if (image.blocks * kKvBlock < least || image.blocks * block * cache.kv_heads != bytes ||
      cache.head_dim % 2 != 0) {
    refuse(step_, operand, "has a cache of " + std::to_string(bytes) + " bytes",
           "whole blocks of 64 tokens, as many as there are");
  }
  image.bytes.resize(static_cast<size_t>(bytes));
  CacheKind kind = cache.kind == CacheKind::value ? CacheKind::value : CacheKind::key;
  CacheStore store{image.bytes.data(), kind, dtype, cache.kv_heads, cache.head_dim, image.blocks};
  for (int64_t head = 0; head < cache.kv_heads; head++) {
    for (int64_t i = 0; i < image.blocks; i++) fill_block(store, head, i, (*random)());
  }
}

// Some rows take all blocks, the others the last and some before it.
void StepImages::choose_blocks(const LaunchOperand& operand) {
  const LaunchOperand* key = step_.operand("key");
  if (!key || key->kind != LaunchOperand::Kind::cache) return;
  int64_t heads = plan_.caches[key->index].kv_heads;
  int64_t width = operand.columns / heads;
  auto size = static_cast<int64_t>(std::clamp(step_.attribute("block_size", kKvBlock), 0.0, 1e6));
  if (operand.columns % heads != 0 || width < 2 || size < 1 || size > kKvBlock) {
    refuse(step_, operand, "has no room for blocks", "a count and blocks of at most 64 tokens");
  }
  for (int64_t t = 0; t < scalars_.tokens; t++) {
    int64_t last = (scalars_.past + t) / size;
    for (int64_t head = 0; head < heads; head++) {
      int32_t* row = ids(operand, t) + head * width;
      std::fill_n(row, width, -1);
      if ((t + head) % 3 == 2) continue;
      int64_t count = std::min(width - 1, last + 1);
      row[0] = static_cast<int32_t>(count);
      for (int64_t i = 1; i <= count; i++) row[i] = static_cast<int32_t>(last * i / count);
      // Blocks ascend: where there are as many as places they are all of them.
      if (count == last + 1) {
        for (int64_t i = 1; i <= count; i++) row[i] = static_cast<int32_t>(i - 1);
      }
    }
  }
}

const int32_t* StepImages::ids(const LaunchOperand& operand, int64_t row) const {
  return const_cast<StepImages*>(this)->ids(operand, row);
}

float* StepImages::row(const LaunchOperand& operand, int64_t row) {
  return reinterpret_cast<float*>(ids(operand, row));
}

const float* StepImages::row(const LaunchOperand& operand, int64_t row) const {
  return reinterpret_cast<const float*>(ids(operand, row));
}

int32_t* StepImages::ids(const LaunchOperand& operand, int64_t row) {
  char* bytes = slots_.at(operand.index).bytes.data();
  return reinterpret_cast<int32_t*>(bytes) + row * operand.stride + operand.column;
}

Operand StepImages::operand(const LaunchOperand& operand) {
  if (operand.kind == LaunchOperand::Kind::buffer) {
    return {ids(operand, 0),
            {scalars_.tokens, operand.columns, 1, 1},
            operand.stride,
            2,
            operand.is_float ? DType::f32 : DType::i32};
  }
  if (operand.kind == LaunchOperand::Kind::weight) {
    // Kernels only read it.
    return {const_cast<char*>(weight(operand.index)),
            {plan_.weights[operand.index].bytes / 4, 1, 1, 1},
            1,
            1,
            DType::f32};
  }
  const LaunchCache& cache = plan_.caches[operand.index];
  Cache& image = caches_.at(operand.index);
  Operand result{image.bytes.data(),
                 {cache.kv_heads, image.blocks, cache.head_dim, kKvBlock},
                 0,
                 4,
                 dtype_of(plan_)};
  if (cache.kind == CacheKind::value) {
    result = {image.bytes.data(),
              {cache.kv_heads, image.blocks * kKvBlock, cache.head_dim, 1},
              0,
              3,
              dtype_of(plan_)};
  }
  return result;
}

// Keys of fp16 lie in pairs of dimensions on devices, [head_dim / 2][64][2] in place of
// [head_dim][64]; all else lies alike.
std::vector<char> StepImages::reorder(const Cache& cache, size_t index, bool to_device) const {
  const LaunchCache& shape = plan_.caches[index];
  if (!plan_.half_caches || shape.kind == CacheKind::value) return cache.bytes;
  std::vector<char> result(cache.bytes.size());
  const auto* from = reinterpret_cast<const uint16_t*>(cache.bytes.data());
  auto* to = reinterpret_cast<uint16_t*>(result.data());
  for (int64_t block = 0; block < cache.blocks * shape.kv_heads; block++) {
    for (int64_t i = 0; i < shape.head_dim * kKvBlock; i++) {
      int64_t dimension = i / kKvBlock;
      int64_t token = i % kKvBlock;
      int64_t paired = (dimension / 2 * kKvBlock + token) * 2 + dimension % 2;
      int64_t at = block * shape.head_dim * kKvBlock;
      if (to_device) {
        to[at + paired] = from[at + i];
      } else {
        to[at + i] = from[at + paired];
      }
    }
  }
  return result;
}

void StepImages::upload(StepRunner* runner) const {
  for (const auto& slot : slots_) {
    runner->write(LaunchArgument::Kind::slot, slot.first, slot.second.bytes);
  }
  for (const auto& cache : caches_) {
    runner->write(LaunchArgument::Kind::cache, cache.first,
                  reorder(cache.second, cache.first, true));
  }
}

StepImages StepImages::download(StepRunner* runner) const {
  StepImages copy = *this;
  for (auto& slot : copy.slots_) {
    runner->read(LaunchArgument::Kind::slot, slot.first, &slot.second.bytes);
  }
  for (auto& cache : copy.caches_) {
    runner->read(LaunchArgument::Kind::cache, cache.first, &cache.second.bytes);
    cache.second.bytes = reorder(cache.second, cache.first, false);
  }
  return copy;
}

}  // namespace ark
