#include "device/opencl_context.h"

#include <algorithm>

#include "device/device_cache.h"
#include "device/opencl_needs.h"
#include "error.h"
#include "sha256.h"

namespace ark {
namespace {

constexpr const char* kCached = "opencl-program";
// PoCL keeps what it builds by itself, and a binary of its would have every kernel built twice.
constexpr const char* kKeepsItsOwn = "Portable Computing Language";

std::string bytes_for(int64_t bytes, const std::string& what) {
  return std::to_string(bytes) + " bytes for " + what;
}

}  // namespace

OpenClContext::OpenClContext(const OpenClDevice& device, const DeviceModel& model)
    : device_(device) {
  check_extensions(device_, *model.plan);
  options_ = build_options(device_, *model.plan);
  int32_t code = 0;
  context_ = ClHandle<cl::Context, &cl::Api::ReleaseContext>(
      cl::api().CreateContext(nullptr, 1, &device_.device, nullptr, nullptr, &code));
  cl::check(code, "opening " + device_.name);
  queue_ = ClHandle<cl::Queue, &cl::Api::ReleaseCommandQueue>(
      cl::api().CreateCommandQueue(context_.get(), device_.device, 0, &code));
  cl::check(code, "opening a queue of " + device_.name);
  build(model);
  upload_weights(model);
  make_images(*model.plan);
}

void OpenClContext::build(const DeviceModel& model) {
  const std::string key =
      sha256_hex(model.source, model.source_bytes) + "\n" + options_ + "\n" + device_.identity();
  const bool cached = device_.name.find(kKeepsItsOwn) == std::string::npos;
  if (cached && build_from_cache(key)) return;
  int32_t code = 0;
  program_ = ClProgram(cl::api().CreateProgramWithSource(
      context_.get(), 1, &const_cast<const char*&>(model.source), &model.source_bytes, &code));
  cl::check(code, "reading kernels.cl");
  code = cl::api().BuildProgram(program_.get(), 1, &device_.device, options_.c_str(), nullptr,
                                nullptr);
  if (code == cl::kSuccess) {
    if (cached) keep_in_cache(key);
    return;
  }
  size_t size = 0;
  cl::api().GetProgramBuildInfo(program_.get(), device_.device, cl::kBuildLog, 0, nullptr, &size);
  std::string log(size, '\0');
  cl::api().GetProgramBuildInfo(program_.get(), device_.device, cl::kBuildLog, size, &log[0],
                                nullptr);
  constexpr size_t kShown = 1500;
  fail(ARK_EXECUTOR_FAILED,
       "kernels.cl does not build for " + device_.name + " (" + cl::code_name(code) +
           "): " + quote(log.substr(0, kShown)),
       "", "update the driver, or run on the CPU: --on cpu");
}

bool OpenClContext::build_from_cache(const std::string& key) {
  std::string binary;
  if (!read_cached(kCached, key, &binary)) return false;
  const size_t size = binary.size();
  const auto* data = reinterpret_cast<const unsigned char*>(binary.data());
  int32_t status = 0;
  int32_t code = 0;
  ClProgram program(cl::api().CreateProgramWithBinary(context_.get(), 1, &device_.device, &size,
                                                      &data, &status, &code));
  // A driver may refuse what an older one built, whatever it calls itself.
  if (code != cl::kSuccess || status != cl::kSuccess) return false;
  code =
      cl::api().BuildProgram(program.get(), 1, &device_.device, options_.c_str(), nullptr, nullptr);
  if (code != cl::kSuccess) return false;
  program_ = std::move(program);
  return true;
}

void OpenClContext::keep_in_cache(const std::string& key) const {
  size_t size = 0;
  int32_t code = cl::api().GetProgramInfo(program_.get(), cl::kProgramBinarySizes, sizeof(size),
                                          &size, nullptr);
  if (code != cl::kSuccess || size == 0) return;  // a driver that gives no binaries
  std::string binary(size, '\0');
  char* data = &binary[0];
  code =
      cl::api().GetProgramInfo(program_.get(), cl::kProgramBinaries, sizeof(data), &data, nullptr);
  if (code == cl::kSuccess) write_cached(kCached, key, binary);
}

ClMemory OpenClContext::allocate(int64_t bytes, const std::string& what) const {
  bytes = std::max<int64_t>(bytes, 4);
  int64_t most = device_.number(cl::kDeviceMaxAllocation);
  if (bytes > most) {
    fail(ARK_OUT_OF_MEMORY, bytes_for(bytes, what),
         "at most " + std::to_string(most) + " at once on " + device_.name,
         "load with a smaller context");
  }
  int32_t code = 0;
  ClMemory memory(cl::api().CreateBuffer(context_.get(), cl::kReadWrite, static_cast<size_t>(bytes),
                                         nullptr, &code));
  cl::check(code, bytes_for(bytes, what) + " on " + device_.name);
  // Kernels read past what is written, and multiply it by zero: it must be finite.
  const std::vector<char> zeros(static_cast<size_t>(std::min<int64_t>(bytes, 1 << 20)));
  for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(zeros.size())) {
    auto part = std::min(zeros.size(), static_cast<size_t>(bytes - at));
    cl::check(cl::api().EnqueueWriteBuffer(queue_.get(), memory.get(), 1, static_cast<size_t>(at),
                                           part, zeros.data(), 0, nullptr, nullptr),
              "clearing " + bytes_for(bytes, what));
  }
  return memory;
}

void OpenClContext::upload_weights(const DeviceModel& model) {
  const bool unified = device_.number(cl::kDeviceUnifiedMemory) != 0;
  int64_t most = device_.number(cl::kDeviceMaxAllocation);
  // Where the device shares the host's memory, it reads the mapped file itself.
  uint64_t flags = cl::kReadOnly | (unified ? cl::kUseHostPointer : cl::kCopyHostPointer);
  for (const LaunchWeight& weight : model.plan->weights) {
    if (weight.bytes > most) {
      fail(ARK_OUT_OF_MEMORY, bytes_for(weight.bytes, quote(weight.name)),
           "at most " + std::to_string(most) + " at once on " + device_.name,
           "compile for a profile whose largest_allocation is no more than that");
    }
    int32_t code = 0;
    weights_.emplace_back(
        cl::api().CreateBuffer(context_.get(), flags, static_cast<size_t>(weight.bytes),
                               const_cast<char*>(model.weights) + weight.offset, &code));
    cl::check(code, bytes_for(weight.bytes, quote(weight.name)));
  }
}

void OpenClContext::make_images(const LaunchPlan& plan) {
  for (const auto* steps : {&plan.body, &plan.head}) {
    for (const LaunchStep& step : *steps) {
      for (const Launch& launch : step.launches) {
        for (const LaunchArgument& argument : launch.arguments) {
          if (!argument.image || images_.count(argument.index)) continue;
          images_.emplace(argument.index,
                          image_over(device_, context_.get(), weight(argument.index),
                                     plan.weights[argument.index]));
        }
      }
    }
  }
}

ClKernel OpenClContext::kernel(const Launch& launch, const std::string& place) const {
  int32_t code = 0;
  ClKernel kernel(cl::api().CreateKernel(program_.get(), launch.kernel.c_str(), &code));
  cl::check(code, place + ": the kernel " + quote(launch.kernel));
  uint32_t count = 0;
  cl::check(
      cl::api().GetKernelInfo(kernel.get(), cl::kKernelArguments, sizeof(count), &count, nullptr),
      place);
  size_t lanes = 0;
  cl::check(cl::api().GetKernelWorkGroupInfo(kernel.get(), device_.device, cl::kKernelGroupSize,
                                             sizeof(lanes), &lanes, nullptr),
            place);
  int64_t shared = device_.number(cl::kDeviceSharedMemory);
  if (count != launch.arguments.size()) {
    fail(ARK_INVALID_BUNDLE, place + ": " + std::to_string(launch.arguments.size()) + " arguments",
         std::to_string(count), "compile the bundle again");
  }
  if (static_cast<size_t>(launch.lanes) > lanes || launch.shared_bytes > shared) {
    fail(ARK_EXECUTOR_FAILED,
         place + ": groups of " + std::to_string(launch.lanes) + " lanes with " +
             std::to_string(launch.shared_bytes) + " bytes of shared memory",
         "at most " + std::to_string(lanes) + " and " + std::to_string(shared) + " on " +
             device_.name,
         "compile for the profile of this device, or run on the CPU: --on cpu");
  }
  return kernel;
}

}  // namespace ark
