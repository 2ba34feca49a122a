// How far what a device has is from what it should have.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "device/step_images.h"
#include "halves.h"

namespace ark {
namespace {

constexpr double kUnlike = 1e30;  // more than any tolerance

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
