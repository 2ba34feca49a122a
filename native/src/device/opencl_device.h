// Choosing an OpenCL device, and asking what it has.
#pragma once

#include <cstdint>
#include <string>

#include "device/opencl_api.h"

namespace ark {

struct OpenClDevice {
  cl::Device device = nullptr;
  std::string name;  // with its platform's

  // What a built program and a self-test depend on: the device, its platform and the driver.
  std::string identity() const;

  // A name, version or list that the driver gives as text.
  std::string text(uint32_t what) const;
  // A limit that the driver gives as size_t, cl_uint or cl_ulong.
  int64_t number(uint32_t what) const;
};

// The device whose name, or whose platform's, the environment variable ARK_OPENCL_DEVICE gives a
// part of; else the first GPU; else the first of all. Raises ARK_EXECUTOR_FAILED where there is
// none, or only one that is older than OpenCL 1.2; and ARK_INVALID_ARGUMENT where none has the
// name.
OpenClDevice choose_device();

// Whether a driver's version is 1.2 at least: "OpenCL 3.0 PoCL ..." or "OpenCL C 1.2".
bool is_new_enough(const std::string& version);

}  // namespace ark
