#include "device/cuda_launch.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "error.h"

namespace ark {

CudaLaunch::CudaLaunch(const LaunchStep& step, const Launch& launch, cu::Function function,
                       const std::vector<cu::Address>& addresses)
    : step_(&step), launch_(&launch), function_(function), values_(addresses) {
  // A vector keeps its elements' place when it is moved, and launches are never copied.
  for (cu::Address& value : values_) parameters_.push_back(&value);
  check_parameters();
}

void CudaLaunch::check_parameters() const {
  if (!cu::api().FuncGetParamInfo) return;
  size_t offset = 0;
  size_t size = 0;
  size_t count = 0;
  bool same = true;
  while (cu::api().FuncGetParamInfo(function_, count, &offset, &size) == cu::kSuccess) {
    bool known = count < launch_->arguments.size();
    bool scalar = known && launch_->arguments[count].kind == LaunchArgument::Kind::scalar;
    same = same && known && size == (scalar ? sizeof(int32_t) : sizeof(cu::Address));
    count++;
  }
  if (same && count == launch_->arguments.size()) return;
  fail(ARK_INVALID_BUNDLE,
       place() + ": " + std::to_string(launch_->arguments.size()) + " arguments for " +
           quote(launch_->kernel),
       "the " + std::to_string(count) + " of the kernel, of the same sizes",
       "compile the bundle again");
}

bool CudaLaunch::set(const LaunchScalars& scalars) {
  bool changed = false;
  for (size_t axis = 0; axis < 3; axis++) {
    int64_t size = launch_->groups[axis].evaluate(scalars);
    if (size > std::numeric_limits<int32_t>::max()) {
      fail(ARK_INVALID_BUNDLE, place() + ": " + std::to_string(size) + " groups", "less than 2^31",
           "compile with a smaller chunk");
    }
    changed = changed || grid_[axis] != static_cast<unsigned>(size);
    grid_[axis] = static_cast<unsigned>(size);
  }
  for (size_t i = 0; i < values_.size(); i++) {
    const LaunchArgument& argument = launch_->arguments[i];
    if (argument.kind != LaunchArgument::Kind::scalar) continue;
    auto value = static_cast<int32_t>(scalars.*argument.scalar);
    changed = changed || std::memcmp(&values_[i], &value, sizeof(value)) != 0;
    std::memcpy(&values_[i], &value, sizeof(value));
  }
  return changed;
}

void CudaLaunch::run(cu::Stream stream) {
  if (empty()) return;
  cu::check(cu::api().LaunchKernel(function_, grid_[0], grid_[1], grid_[2],
                                   static_cast<unsigned>(launch_->lanes), 1, 1,
                                   static_cast<unsigned>(launch_->dynamic_bytes), stream,
                                   parameters_.data(), nullptr),
            place());
}

cu::KernelNode CudaLaunch::node() {
  cu::KernelNode node{};
  node.function = function_;
  for (size_t axis = 0; axis < 3; axis++) {
    node.grid[axis] = empty() ? 1 : grid_[axis];
    node.block[axis] = axis == 0 ? static_cast<unsigned>(launch_->lanes) : 1;
  }
  node.shared_bytes = static_cast<unsigned>(launch_->dynamic_bytes);
  node.parameters = parameters_.data();
  return node;
}

}  // namespace ark
