// tuning.json (docs/bundle.md): what 'arkinfer tune' measured to be faster on one CPU.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compiled_plan.h"

namespace ark {

struct Tuning {
  std::string bundle;           // the digest of the bundle that was measured
  std::string cpu;              // cpu_name() there
  std::vector<int64_t> tokens;  // counts that were measured, ascending
  // By activations (ark_activations), shape of the compiled plan and count: whether the bundle's
  // kernels were faster than the library's.
  std::vector<std::vector<bool>> compiled[2];

  // Whether the bundle's kernels shall compute so many tokens: what the nearest measured count that
  // is not larger says.
  bool prefers_compiled(int32_t activations, size_t shape, int64_t count) const;
};

// Raises ARK_INVALID_BUNDLE for what is no such table or does not fit the plan.
Tuning parse_tuning(const char* text, size_t size, const CompiledPlan& plan);

// What this processor calls itself ("AMD EPYC 7763 64-Core Processor"); empty: unknown.
const std::string& cpu_name();

}  // namespace ark
