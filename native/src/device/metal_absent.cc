// Systems without Metal: their builds refuse its bundles by name.
#ifndef __APPLE__
#include "device/device_run.h"
#include "error.h"

namespace ark {

std::unique_ptr<DeviceRun> open_metal(const DeviceModel&, int64_t, const std::atomic<bool>*) {
  fail(ARK_EXECUTOR_FAILED, "this bundle was compiled for Metal, which this system does not have",
       "macOS or iOS", "compile the model with --target cpu, opencl or webgpu");
}

}  // namespace ark
#endif
