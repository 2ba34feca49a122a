#include "device/metal_context.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "error.h"

namespace ark {
namespace {

constexpr size_t kShown = 1500;  // of a compiler's log
const char* const kElse = "update the system, or compile the model with --target cpu";

}  // namespace

std::string metal_reason(NSError* error) {
  if (!error) return "no reason given";
  std::string text = error.localizedDescription.UTF8String ?: "";
  return quote(text.substr(0, kShown)) + " (" + (error.domain.UTF8String ?: "") + " " +
         std::to_string(static_cast<long>(error.code)) + ")";
}

MetalContext::MetalContext(const DeviceModel& model) : device_(MTLCreateSystemDefaultDevice()) {
  if (!device_) {
    fail(ARK_EXECUTOR_FAILED, "no Metal device", "a GPU that runs Metal",
         "compile the model with --target cpu");
  }
  name_ = device_.name.UTF8String ?: "a Metal device";
  queue_ = [device_ newCommandQueue];
  if (!queue_) fail(ARK_EXECUTOR_FAILED, "no command queue on " + name_, "", kElse);
  build(model);
  hold_weights(model);
}

void MetalContext::build(const DeviceModel& model) {
  NSString* source = [[NSString alloc] initWithBytes:model.source
                                              length:model.source_bytes
                                            encoding:NSUTF8StringEncoding];
  if (!source) fail(ARK_INVALID_BUNDLE, "kernels.metal is not UTF-8", "", "compile it again");
  MTLCompileOptions* options = [MTLCompileOptions new];
  // Kernels count on infinities, which fast arithmetic may assume away.
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wdeprecated-declarations"
  options.fastMathEnabled = NO;
#pragma clang diagnostic pop
  NSError* error = nil;
  library_ = [device_ newLibraryWithSource:source options:options error:&error];
  if (!library_) {
    fail(ARK_EXECUTOR_FAILED,
         "kernels.metal does not build for " + name_ + ": " + metal_reason(error), "", kElse);
  }
}

id<MTLComputePipelineState> MetalContext::kernel(const Launch& launch, const std::string& place) {
  auto known = kernels_.find(launch.kernel);
  if (known != kernels_.end()) return known->second;
  NSString* name = [NSString stringWithUTF8String:launch.kernel.c_str()];
  id<MTLFunction> function = name ? [library_ newFunctionWithName:name] : nil;
  if (!function) {
    fail(ARK_INVALID_BUNDLE, place + ": no kernel " + quote(launch.kernel) + " in kernels.metal",
         "one of its entry points", "compile the bundle again");
  }
  NSError* error = nil;
  id<MTLComputePipelineState> made = [device_ newComputePipelineStateWithFunction:function
                                                                            error:&error];
  if (!made) {
    fail(ARK_EXECUTOR_FAILED,
         place + ": " + launch.kernel + " does not build for " + name_ + ": " + metal_reason(error),
         "", kElse);
  }
  if (static_cast<NSUInteger>(launch.lanes) > made.maxTotalThreadsPerThreadgroup ||
      made.staticThreadgroupMemoryLength > device_.maxThreadgroupMemoryLength) {
    fail(ARK_EXECUTOR_FAILED,
         place + ": " + std::to_string(launch.lanes) + " threads and " +
             std::to_string(made.staticThreadgroupMemoryLength) + " bytes of threadgroup memory",
         std::to_string(made.maxTotalThreadsPerThreadgroup) + " and " +
             std::to_string(device_.maxThreadgroupMemoryLength) + " at most on " + name_,
         "compile the model for this device");
  }
  kernels_.emplace(launch.kernel, made);
  return made;
}

id<MTLBuffer> MetalContext::allocate(int64_t bytes, const std::string& what) const {
  auto size = static_cast<NSUInteger>(std::max<int64_t>(bytes, 4));
  id<MTLBuffer> made = nil;
  if (size <= device_.maxBufferLength) {
    made = [device_ newBufferWithLength:size options:MTLResourceStorageModeShared];
  }
  if (!made) {
    fail(ARK_OUT_OF_MEMORY, std::to_string(size) + " bytes for " + what,
         "at most " + std::to_string(device_.maxBufferLength) + " at once on " + name_ +
             ", and as much free",
         "load with a smaller context");
  }
  // Kernels read past what is written, and multiply it by zero: it must be finite.
  std::memset(made.contents, 0, size);
  return made;
}

void MetalContext::hold_weights(const DeviceModel& model) {
  int64_t end = 0;
  for (const LaunchWeight& weight : model.plan->weights) {
    end = std::max(end, weight.offset + weight.bytes);
  }
  // The mapped file is whole pages, and the GPU can read them where they are.
  auto page = static_cast<int64_t>(getpagesize());
  auto length = static_cast<NSUInteger>(round_up(end, page));
  bool aligned = reinterpret_cast<uintptr_t>(model.weights) % static_cast<uintptr_t>(page) == 0;
  id<MTLBuffer> whole = nil;
  if (end > 0 && aligned && length <= device_.maxBufferLength) {
    whole = [device_ newBufferWithBytesNoCopy:const_cast<char*>(model.weights)
                                       length:length
                                      options:MTLResourceStorageModeShared
                                  deallocator:nil];
  }
  for (const LaunchWeight& weight : model.plan->weights) {
    if (whole) {
      weights_.push_back({whole, static_cast<NSUInteger>(weight.offset)});
      continue;
    }
    id<MTLBuffer> copy = allocate(weight.bytes, quote(weight.name));
    std::memcpy(copy.contents, model.weights + weight.offset, static_cast<size_t>(weight.bytes));
    weights_.push_back({copy, 0});
  }
}

}  // namespace ark
