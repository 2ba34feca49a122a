// A CUDA device with its primary context, which all sessions of the process share.
#pragma once

#include <memory>
#include <string>

#include "device/cuda_api.h"
#include "device/launch_plan.h"

namespace ark {

class CudaDevice {
 public:
  // The first device that the driver shows (CUDA_VISIBLE_DEVICES chooses). Raises
  // ARK_EXECUTOR_FAILED.
  static std::shared_ptr<CudaDevice> open();
  CudaDevice();
  ~CudaDevice();
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  // Calls that follow on this thread are for this device.
  void make_current() const;
  int use() const noexcept { return cu::api().CtxSetCurrent(context_); }  // the code

  const std::string& name() const { return name_; }
  int capability() const { return capability_; }   // 87 for sm_87
  bool integrated() const { return integrated_; }  // shares the host's memory
  int attribute(int what) const;

 private:
  cu::Device device_ = 0;
  cu::Context context_ = nullptr;
  std::string name_;
  int capability_ = 0;
  bool integrated_ = false;
};

// Raises ARK_EXECUTOR_FAILED for code that the device cannot run.
void check_architecture(const LaunchCode& code, const CudaDevice& device);

}  // namespace ark
