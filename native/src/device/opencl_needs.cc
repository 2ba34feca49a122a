#include "device/opencl_needs.h"

#include <algorithm>

#include "error.h"

namespace ark {
namespace {

constexpr int64_t kPlaceBytes = 16;

}  // namespace

void check_extensions(const OpenClDevice& device, const LaunchPlan& plan) {
  const std::string found = " " + device.text(cl::kDeviceExtensions) + " ";
  for (const std::string& name : plan.extensions) {
    if (found.find(" " + name + " ") != std::string::npos) continue;
    fail(ARK_EXECUTOR_FAILED, device.name + " has no " + name, "that extension of OpenCL",
         "compile the model for this device, or with --target opencl, which needs none");
  }
}

std::string build_options(const OpenClDevice& device, const LaunchPlan& plan) {
  const auto& names = plan.extensions;
  // Sub-groups of Khronos came with OpenCL C 2.0; those of Intel are in 1.2 too.
  if (std::find(names.begin(), names.end(), "cl_khr_subgroups") == names.end()) {
    return "-cl-std=CL1.2";
  }
  const std::string version = device.text(cl::kDeviceLanguageVersion);  // "OpenCL C 3.0 ..."
  const size_t at = version.find_first_of("0123456789");
  return "-cl-std=CL" + (at == std::string::npos ? "2.0" : version.substr(at, 3));
}

ClMemory image_over(const OpenClDevice& device, cl::Context context, cl::Memory buffer,
                    const LaunchWeight& weight) {
  const int64_t places = weight.bytes / kPlaceBytes;
  const int64_t most = device.number(cl::kDeviceImageBufferWidth);
  if (places > most) {
    fail(ARK_EXECUTOR_FAILED,
         "an image of " + std::to_string(places) + " places for " + quote(weight.name),
         "at most " + std::to_string(most) + " on " + device.name,
         "compile for this device, or with --target opencl, which needs no images");
  }
  const cl::ImageFormat format{cl::kRgba, cl::kUnsignedInt32};
  cl::ImageDescription description{};
  description.type = cl::kImageOfBuffer;
  description.width = static_cast<size_t>(places);
  description.buffer = buffer;
  int32_t code = 0;
  ClMemory image(
      cl::api().CreateImage(context, cl::kReadOnly, &format, &description, nullptr, &code));
  cl::check(code, "an image of " + quote(weight.name) + " on " + device.name);
  return image;
}

}  // namespace ark
