// A launch of a plan with its kernel and the values of its arguments.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device/cuda_api.h"
#include "device/launch_plan.h"

namespace ark {

class CudaLaunch {
 public:
  // `addresses`: of each argument; 0 for scalars. Raises ARK_INVALID_BUNDLE where the kernel has
  // other parameters than the launch.
  CudaLaunch(const LaunchStep& step, const Launch& launch, cu::Function function,
             const std::vector<cu::Address>& addresses);
  CudaLaunch(CudaLaunch&&) = default;
  CudaLaunch& operator=(CudaLaunch&&) = default;

  bool used(int64_t tokens) const { return tokens >= launch_->least && tokens <= launch_->most; }
  // Works out grid and scalars; false where both are what they were.
  bool set(const LaunchScalars& scalars);
  // A grid without blocks: nothing to run.
  bool empty() const { return grid_[0] == 0 || grid_[1] == 0 || grid_[2] == 0; }
  void run(cu::Stream stream);
  // As a node of a graph; an empty grid has one block, because nodes have no empty ones.
  cu::KernelNode node();
  const std::string& place() const { return step_->place; }

 private:
  void check_parameters() const;

  const LaunchStep* step_;
  const Launch* launch_;
  cu::Function function_;
  unsigned grid_[3] = {0, 0, 0};
  std::vector<cu::Address> values_;  // an address, or an int32 in the first bytes
  std::vector<void*> parameters_;    // where each value lies
};

}  // namespace ark
