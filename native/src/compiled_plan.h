// kernels.json (docs/bundle.md): which functions of the bundle's library make up which steps.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device/launch_plan.h"
#include "kernel.h"
#include "plan.h"

namespace ark {

struct CompiledArgument {
  enum class Kind { absent, operand, scratch, scalar };
  Kind kind;
  size_t index;                     // into the step's operands or the plan's scratch
  int64_t LaunchScalars::* scalar;  // of a scalar
};

struct CompiledLaunch {
  std::string function;
  int64_t least, most;  // tokens for which it is used
  LaunchSize groups;    // how often its parallel loop runs
  std::vector<CompiledArgument> arguments;
};

struct CompiledStep {
  std::vector<CompiledLaunch> launches;  // none: only the runtime's own kernel computes it
  size_t shape = 0;                      // into the plan's shapes
};

struct CompiledPlan {
  Isa isa = Isa::scalar;    // what the library's code needs
  bool half_caches = true;  // caches that it reads: fp16, else fp32
  int64_t workspace = 0;    // bytes that a thread needs for itself
  std::vector<LaunchSize> scratch;
  std::vector<std::string> shapes;  // "matmul 4096 x 4096 w4g128": what is tuned together
  std::vector<CompiledStep> body, head;
};

// Raises ARK_INVALID_BUNDLE for what does not fit the plan.
CompiledPlan parse_compiled_plan(const char* text, size_t size, const Plan& plan);

}  // namespace ark
