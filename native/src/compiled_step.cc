#include "compiled_step.h"

#include <algorithm>

#include "error.h"

namespace ark {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int32_t kCpu = 1;  // DLPack's name for it
// Compiled functions take sizes from their scalars; every buffer has one dimension.
const int64_t kNoShape[1] = {0};

tvm_abi::Any integer(int64_t value) {
  tvm_abi::Any any{tvm_abi::kInteger, 0, {}};
  any.integer = value;
  return any;
}

}  // namespace

CompiledMemory compiled_memory(const CompiledPlan& plan, int64_t capacity, int32_t threads) {
  LaunchScalars scalars;
  scalars.capacity = capacity;
  CompiledMemory memory;
  for (const LaunchSize& size : plan.scratch) {
    memory.offsets.push_back(memory.bytes);
    memory.bytes += round_up(size.evaluate(scalars), kAlignment);
  }
  memory.workspace = memory.bytes;
  memory.bytes += round_up(plan.workspace, kAlignment) * threads;
  return memory;
}

CompiledCall::CompiledCall(const CompiledPlan& plan, const CompiledStep& step,
                           const CompiledLibrary& library, const std::vector<void*>& data,
                           const CompiledMemory& memory, int64_t capacity)
    : shape_(step.shape),
      capacity_(capacity),
      memory_(&memory),
      workspace_bytes_(round_up(plan.workspace, kAlignment)) {
  for (const CompiledLaunch& launch : step.launches) {
    BoundLaunch bound{&launch, library.find(launch.function), {}, nullptr};
    bound.tensors = std::make_unique<tvm_abi::Tensor[]>(launch.arguments.size());
    for (size_t i = 0; i < launch.arguments.size(); i++) {
      const CompiledArgument& argument = launch.arguments[i];
      if (argument.kind == CompiledArgument::Kind::scalar) {
        bound.arguments.push_back(integer(0));
        continue;
      }
      void* address = nullptr;
      if (argument.kind == CompiledArgument::Kind::operand) address = data[argument.index];
      bound.tensors[i] = {address, kCpu, 0, 1, 0, 0, 1, kNoShape, nullptr, 0};
      tvm_abi::Any any{tvm_abi::kTensor, 0, {}};
      any.pointer = &bound.tensors[i];
      bound.arguments.push_back(any);
    }
    launches_.push_back(std::move(bound));
  }
}

void CompiledCall::run(const Call& call) {
  LaunchScalars scalars;
  scalars.tokens = call.tokens;
  scalars.past = call.past;
  scalars.total = call.total;
  scalars.capacity = capacity_;
  CompiledContext context{&call.parallel, call.scratch + memory_->workspace, workspace_bytes_, 0};
  for (BoundLaunch& bound : launches_) {
    const CompiledLaunch& launch = *bound.launch;
    if (call.tokens < launch.least || call.tokens > launch.most) continue;
    for (size_t i = 0; i < launch.arguments.size(); i++) {
      const CompiledArgument& argument = launch.arguments[i];
      if (argument.kind == CompiledArgument::Kind::scalar) {
        bound.arguments[i].integer = scalars.*argument.scalar;
      } else if (argument.kind == CompiledArgument::Kind::scratch) {
        bound.tensors[i].data = call.scratch + memory_->offsets[argument.index];
      }
    }
    context.groups = launch.groups.evaluate(scalars);
    call_compiled(bound.function, bound.arguments.data(),
                  static_cast<int32_t>(bound.arguments.size()), context);
  }
}

}  // namespace ark
