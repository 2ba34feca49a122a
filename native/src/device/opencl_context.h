// A device with a model's program and weights, which runs share.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "device/device_run.h"
#include "device/opencl_device.h"
#include "device/opencl_handle.h"

namespace ark {

class OpenClContext {
 public:
  // Raises ARK_EXECUTOR_FAILED and ARK_OUT_OF_MEMORY.
  OpenClContext(const OpenClDevice& device, const DeviceModel& model);

  const OpenClDevice& device() const { return device_; }
  cl::Queue queue() const { return queue_.get(); }
  cl::Memory weight(size_t index) const { return weights_[index].get(); }
  // The same memory as an image, of weights that a launch reads through one.
  cl::Memory weight_image(size_t index) const { return images_.at(index).get(); }
  // Memory filled with zeros; `what` it is for, in messages.
  ClMemory allocate(int64_t bytes, const std::string& what) const;
  // The kernel of a launch, once it is sure that the device can launch it so.
  ClKernel kernel(const Launch& launch, const std::string& place) const;

 private:
  void build(const DeviceModel& model);
  bool build_from_cache(const std::string& key);
  void keep_in_cache(const std::string& key) const;
  void upload_weights(const DeviceModel& model);
  void make_images(const LaunchPlan& plan);

  OpenClDevice device_;
  ClHandle<cl::Context, &cl::Api::ReleaseContext> context_;
  ClHandle<cl::Queue, &cl::Api::ReleaseCommandQueue> queue_;
  ClProgram program_;
  std::vector<ClMemory> weights_;
  std::map<size_t, ClMemory> images_;  // by weight
  std::string options_;
};

}  // namespace ark
