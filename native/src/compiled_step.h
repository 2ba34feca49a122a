// A step whose kernels come from the bundle's own library, bound to a session's memory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "compiled_library.h"
#include "compiled_plan.h"
#include "kernel.h"
#include "tuning.h"

namespace ark {

// Memory for compiled steps: what the launches of one step share, and each thread's own.
struct CompiledMemory {
  std::vector<int64_t> offsets;  // of the plan's scratch, in bytes
  int64_t workspace = 0;         // where the threads' own begins
  int64_t bytes = 0;             // of all
};
CompiledMemory compiled_memory(const CompiledPlan& plan, int64_t capacity, int32_t threads);

class CompiledCall {
 public:
  // data: of each operand of the step in plan.json, the first byte of its buffer (whatever columns
  // the step sees of it).
  CompiledCall(const CompiledPlan& plan, const CompiledStep& step, const CompiledLibrary& library,
               const std::vector<void*>& data, const CompiledMemory& memory, int64_t capacity);
  void choose_by(const Tuning* tuning, int32_t activations) {
    tuning_ = tuning;
    activations_ = activations;
  }

  // Whether it, and not the library's kernel, computes so many tokens; without a table it does.
  bool wanted(int64_t tokens) const {
    return !tuning_ || tuning_->prefers_compiled(activations_, shape_, tokens);
  }
  void run(const Call& call);

 private:
  struct BoundLaunch {
    const CompiledLaunch* launch;
    tvm_abi::Function function;
    std::vector<tvm_abi::Any> arguments;
    std::unique_ptr<tvm_abi::Tensor[]> tensors;
  };

  const Tuning* tuning_ = nullptr;
  int32_t activations_ = 0;
  size_t shape_;
  int64_t capacity_;
  const CompiledMemory* memory_;
  int64_t workspace_bytes_;
  std::vector<BoundLaunch> launches_;
};

}  // namespace ark
