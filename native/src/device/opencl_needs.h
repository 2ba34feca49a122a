// What a bundle's kernels need of a device beyond OpenCL 1.2.
#pragma once

#include <string>

#include "device/launch_plan.h"
#include "device/opencl_device.h"
#include "device/opencl_handle.h"

namespace ark {

// Raises ARK_EXECUTOR_FAILED for an extension that the device lacks.
void check_extensions(const OpenClDevice& device, const LaunchPlan& plan);

// What the source is built with.
std::string build_options(const OpenClDevice& device, const LaunchPlan& plan);

// Four words a place, read from the buffer's own memory. Raises ARK_EXECUTOR_FAILED.
ClMemory image_over(const OpenClDevice& device, cl::Context context, cl::Memory buffer,
                    const LaunchWeight& weight);

}  // namespace ark
