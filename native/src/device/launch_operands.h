// What a step of launches.json computes: its operands and attributes under the names that the CPU's
// kernels have for them. Launches need none of it; the self-test does.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "json.h"

namespace ark {

struct LaunchPlan;

// A weight with two dimensions, in parts of some rows.
struct LaunchMatrix {
  enum class Values { f32, f16, bf16, offset, minimum };  // the last two are codes with scales
  struct Part {
    int64_t first, outputs;
    size_t codes, scales;  // of the plan's weights; scales only of codes
  };
  Values values = Values::f32;
  int64_t inputs = 0, bits = 0, group = 0;
  int64_t scale_words = 0;  // of a group: 1 of halves, 2 of float32
  std::vector<Part> parts;

  bool has_scales() const { return values == Values::offset || values == Values::minimum; }
  int64_t outputs() const { return parts.back().first + parts.back().outputs; }
};

struct LaunchOperand {
  enum class Kind { buffer, weight, cache, matrix };
  std::string name;
  Kind kind = Kind::buffer;
  size_t index = 0;                             // of a slot, a weight or a cache
  bool is_float = true;                         // of a buffer
  int64_t stride = 0, column = 0, columns = 0;  // of a buffer
  LaunchMatrix matrix;
};

using LaunchIndex = std::unordered_map<std::string, size_t>;

// Raise ARK_INVALID_BUNDLE. weights and caches are the plan's, by name.
LaunchMatrix read_matrix(const JsonView& entry, const LaunchPlan& plan, const LaunchIndex& weights);
std::vector<LaunchOperand> read_operands(const JsonView& operands, const LaunchPlan& plan,
                                         const LaunchIndex& weights, const LaunchIndex& caches);
std::vector<std::pair<std::string, double>> read_attributes(const JsonView& attributes);

}  // namespace ark
