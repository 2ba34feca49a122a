// A Metal device with a bundle's kernels and weights. Objective-C++ alone.
#pragma once

#import <Metal/Metal.h>

#include <string>
#include <unordered_map>
#include <vector>

#include "device/device_run.h"

namespace ark {

class MetalContext {
 public:
  // Opens the device and compiles the source. Raises ARK_EXECUTOR_FAILED, with the compiler's log
  // where there is one, and ARK_OUT_OF_MEMORY.
  explicit MetalContext(const DeviceModel& model);

  id<MTLDevice> device() const { return device_; }
  id<MTLCommandQueue> queue() const { return queue_; }
  const std::string& name() const { return name_; }

  // A compiled kernel, made on first use; `place` names the step that launches it.
  id<MTLComputePipelineState> kernel(const Launch& launch, const std::string& place);
  // Zeros that the processor sees too. Raises ARK_OUT_OF_MEMORY, with what they are for.
  id<MTLBuffer> allocate(int64_t bytes, const std::string& what) const;

  // Where a weight lies: a buffer, and bytes into it.
  struct Weight {
    id<MTLBuffer> buffer;
    NSUInteger offset;
  };
  const Weight& weight(size_t index) const { return weights_[index]; }

 private:
  void build(const DeviceModel& model);
  void hold_weights(const DeviceModel& model);

  id<MTLDevice> device_;
  id<MTLCommandQueue> queue_;
  id<MTLLibrary> library_;
  std::string name_;
  std::unordered_map<std::string, id<MTLComputePipelineState>> kernels_;
  std::vector<Weight> weights_;
};

// What an error of Metal says, or "no reason given".
std::string metal_reason(NSError* error);

}  // namespace ark
