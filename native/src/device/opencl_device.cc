#include "device/opencl_device.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "error.h"

namespace ark {
namespace {

template <typename F, typename T>
std::string text_of(F info, T object, uint32_t what) {
  size_t size = 0;
  cl::check(info(object, what, 0, nullptr, &size), "asking for a name");
  std::string text(size, '\0');
  cl::check(info(object, what, size, &text[0], nullptr), "asking for a name");
  return text.substr(0, text.find('\0'));
}

std::vector<cl::Platform> platforms() {
  uint32_t count = 0;
  int32_t code = cl::api().GetPlatformIDs(0, nullptr, &count);
  if (code != cl::kSuccess || count == 0) {
    fail(ARK_EXECUTOR_FAILED, "the OpenCL loader finds no platform (" + cl::code_name(code) + ")",
         "an installed driver", "install the device's driver, or run on the CPU: --on cpu");
  }
  std::vector<cl::Platform> found(count);
  cl::check(cl::api().GetPlatformIDs(count, found.data(), nullptr), "listing platforms");
  return found;
}

std::vector<cl::Device> devices(cl::Platform platform) {
  uint32_t count = 0;
  if (cl::api().GetDeviceIDs(platform, cl::kDeviceTypeAll, 0, nullptr, &count) != cl::kSuccess) {
    return {};  // a platform without devices
  }
  std::vector<cl::Device> found(count);
  cl::check(cl::api().GetDeviceIDs(platform, cl::kDeviceTypeAll, count, found.data(), nullptr),
            "listing devices");
  return found;
}

// Kernels are written in OpenCL C 1.2, and launched with functions of that version.
void check_versions(const OpenClDevice& device) {
  for (uint32_t what : {cl::kDeviceVersion, cl::kDeviceLanguageVersion}) {
    const std::string version = text_of(cl::api().GetDeviceInfo, device.device, what);
    if (is_new_enough(version)) continue;
    fail(ARK_EXECUTOR_FAILED, device.name + " has " + quote(version), "OpenCL 1.2 or later",
         "update the device's driver, or run on the CPU: --on cpu");
  }
}

}  // namespace

OpenClDevice choose_device() {
  OpenClDevice chosen;
  const char* given = std::getenv("ARK_OPENCL_DEVICE");
  const std::string wanted = given ? given : "";
  std::string names;
  bool found_gpu = false;
  for (cl::Platform platform : platforms()) {
    std::string owner = text_of(cl::api().GetPlatformInfo, platform, cl::kPlatformName);
    for (cl::Device device : devices(platform)) {
      std::string name = text_of(cl::api().GetDeviceInfo, device, cl::kDeviceName);
      uint64_t type = 0;
      cl::check(cl::api().GetDeviceInfo(device, cl::kDeviceType, sizeof(type), &type, nullptr),
                "asking for a device's type");
      name += " (" + owner + ")";
      names += (names.empty() ? "" : ", ") + name;
      bool matches = name.find(wanted) != std::string::npos;
      bool gpu = (type & cl::kDeviceTypeGpu) != 0;
      if (!matches || (chosen.device && (found_gpu || !gpu))) continue;
      chosen.device = device;
      chosen.name = name;
      found_gpu = gpu;
    }
  }
  if (!chosen.device) {
    // A wrong name is a wrong setting; no device at all is what a machine may be like.
    const bool misnamed = !wanted.empty() && !names.empty();
    fail(misnamed ? ARK_INVALID_ARGUMENT : ARK_EXECUTOR_FAILED,
         "no OpenCL device" + (wanted.empty() ? "" : " like " + quote(wanted)),
         names.empty() ? "one" : "part of " + names,
         misnamed ? "set ARK_OPENCL_DEVICE" : "install the device's driver");
  }
  check_versions(chosen);
  return chosen;
}

bool is_new_enough(const std::string& version) {
  const size_t at = version.find_first_of("0123456789");
  int major = 0, minor = 0;
  if (at == std::string::npos ||
      std::sscanf(version.c_str() + at, "%3d.%3d", &major, &minor) != 2) {
    return false;
  }
  return major > 1 || (major == 1 && minor >= 2);
}

std::string OpenClDevice::identity() const {
  return name + "\n" + text(cl::kDeviceVersion) + "\n" + text(cl::kDriverVersion);
}

std::string OpenClDevice::text(uint32_t what) const {
  return text_of(cl::api().GetDeviceInfo, device, what);
}

int64_t OpenClDevice::number(uint32_t what) const {
  uint64_t number = 0;  // size_t and cl_ulong are both written into it
  cl::check(cl::api().GetDeviceInfo(device, what, sizeof(number), &number, nullptr),
            "asking " + name + " for its limits");
  return static_cast<int64_t>(number);
}

}  // namespace ark
