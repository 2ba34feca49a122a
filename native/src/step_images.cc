#include "step_images.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.h"
#include "halves.h"
#include "kv_cache.h"
#include "kv_layout.h"

namespace ark {
namespace {

constexpr double kUnlike = 1e30;  // more than any tolerance

[[noreturn]] void refuse(const LaunchStep& step, const LaunchOperand& operand,
                         const std::string& found, const std::string& expected) {
  fail(ARK_INVALID_BUNDLE, step.place + ": the operand " + quote(operand.name) + " " + found,
       expected, "compile the bundle again");
}

DType dtype_of(const LaunchPlan& plan) { return plan.half_caches ? DType::f16 : DType::f32; }

// Largest difference over largest number; a number that is none differs by kUnlike.
class Difference {
 public:
  void add(float found, float expected) {
    double apart = std::fabs(static_cast<double>(found) - expected);
    if (!(apart <= kUnlike)) apart = kUnlike;
    most_ = std::max(most_, apart);
    largest_ = std::max(largest_, std::fabs(static_cast<double>(expected)));
  }
  double relative() const { return most_ == 0 ? 0 : most_ / std::max(largest_, 1e-30); }

 private:
  double most_ = 0, largest_ = 0;
};

// Blocks that only one of two selections has: a count and as many blocks for each head. A count
// that differs counts for all.
struct Unlike {
  int64_t blocks = 0, differing = 0;

  void add(const int32_t* found, const int32_t* expected, int64_t width) {
    int64_t count = std::min<int64_t>(std::max(expected[0], 0), width - 1);
    blocks += count;
    if (found[0] != expected[0]) {
      differing += width;
      return;
    }
    for (int64_t i = 1; i <= count; i++) {
      differing += std::find(expected + 1, expected + 1 + count, found[i]) == expected + 1 + count;
    }
  }
  // Scores that are all but equal may be told apart differently: one block, or one in fifty.
  double difference() const { return differing <= std::max<int64_t>(1, blocks / 50) ? 0 : 1; }
};

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
  if (image.blocks < 1 || image.blocks * block * cache.kv_heads != bytes ||
      cache.head_dim % 2 != 0) {
    refuse(step_, operand, "has a cache of " + std::to_string(bytes) + " bytes",
           "whole blocks of 64 tokens");
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
  auto size = static_cast<int64_t>(step_.attribute("block_size", kKvBlock));
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

double StepImages::buffer_difference(const StepImages& expected,
                                     const LaunchOperand& operand) const {
  const LaunchOperand* fine = step_.operand("fine");
  const bool selects = fine && fine->kind == LaunchOperand::Kind::cache && operand.name == "y";
  const int64_t heads = selects ? plan_.caches[fine->index].kv_heads : 1;
  const int64_t width = operand.columns / heads;
  Difference difference;
  Unlike unlike;
  for (int64_t t = 0; t < scalars_.tokens; t++) {
    const float* a = row(operand, t);
    const float* b = expected.row(operand, t);
    if (operand.is_float) {  // columns beside it too, which nothing may write
      for (int64_t i = 0; i < operand.stride; i++) {
        difference.add(a[i - operand.column], b[i - operand.column]);
      }
    } else if (selects) {
      for (int64_t head = 0; head < heads; head++) {
        unlike.add(ids(operand, t) + head * width, expected.ids(operand, t) + head * width, width);
      }
    } else if (std::memcmp(a, b, static_cast<size_t>(operand.columns) * 4) != 0) {
      return 1;  // an input that changed
    }
  }
  return std::max(difference.relative(), unlike.difference());
}

double StepImages::cache_difference(const StepImages& expected, size_t index) const {
  const std::vector<char>& found = caches_.at(index).bytes;
  const std::vector<char>& right = expected.caches_.at(index).bytes;
  Difference difference;
  if (plan_.half_caches) {
    const auto* a = reinterpret_cast<const uint16_t*>(found.data());
    const auto* b = reinterpret_cast<const uint16_t*>(right.data());
    uint16_t largest = 0;  // magnitudes are in the order of their bits
    for (size_t i = 0; i < right.size() / 2; i++) {
      largest = std::max<uint16_t>(largest, b[i] & 0x7FFF);
      if (a[i] != b[i]) difference.add(half_to_float(a[i]), half_to_float(b[i]));
    }
    difference.add(half_to_float(largest), half_to_float(largest));
  } else {
    const auto* a = reinterpret_cast<const float*>(found.data());
    const auto* b = reinterpret_cast<const float*>(right.data());
    for (size_t i = 0; i < right.size() / 4; i++) difference.add(a[i], b[i]);
  }
  return difference.relative();
}

double StepImages::difference(const StepImages& expected) const {
  double most = 0;
  for (const LaunchOperand& operand : step_.operands) {
    if (operand.kind == LaunchOperand::Kind::buffer) {
      most = std::max(most, buffer_difference(expected, operand));
    } else if (operand.kind == LaunchOperand::Kind::cache) {
      most = std::max(most, cache_difference(expected, operand.index));
    }
  }
  return most;
}

}  // namespace ark
