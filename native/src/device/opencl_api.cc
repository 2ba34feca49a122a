#include "device/opencl_api.h"

#include <dlfcn.h>

#include "error.h"

namespace ark {
namespace cl {
namespace {

// Linux and Android put the loader, or the driver itself, under these names.
constexpr const char* kLibraries[] = {"libOpenCL.so.1",
                                      "libOpenCL.so",
                                      "/vendor/lib64/libOpenCL.so",
                                      "/system/vendor/lib64/libOpenCL.so",
                                      "/vendor/lib64/egl/libGLES_mali.so",
                                      "/System/Library/Frameworks/OpenCL.framework/OpenCL"};

constexpr int32_t kObjectAllocationFailure = -4;
constexpr int32_t kOutOfResources = -5;
constexpr int32_t kOutOfHostMemory = -6;
constexpr int32_t kInvalidBufferSize = -61;

struct CodeName {
  int32_t code;
  const char* name;
};
constexpr CodeName kCodes[] = {{-1, "CL_DEVICE_NOT_FOUND"},
                               {-2, "CL_DEVICE_NOT_AVAILABLE"},
                               {-3, "CL_COMPILER_NOT_AVAILABLE"},
                               {kObjectAllocationFailure, "CL_MEM_OBJECT_ALLOCATION_FAILURE"},
                               {kOutOfResources, "CL_OUT_OF_RESOURCES"},
                               {kOutOfHostMemory, "CL_OUT_OF_HOST_MEMORY"},
                               {-10, "CL_IMAGE_FORMAT_NOT_SUPPORTED"},
                               {-11, "CL_BUILD_PROGRAM_FAILURE"},
                               {-30, "CL_INVALID_VALUE"},
                               {-34, "CL_INVALID_CONTEXT"},
                               {-38, "CL_INVALID_MEM_OBJECT"},
                               {-45, "CL_INVALID_PROGRAM_EXECUTABLE"},
                               {-46, "CL_INVALID_KERNEL_NAME"},
                               {-48, "CL_INVALID_KERNEL"},
                               {-49, "CL_INVALID_ARG_INDEX"},
                               {-50, "CL_INVALID_ARG_VALUE"},
                               {-51, "CL_INVALID_ARG_SIZE"},
                               {-52, "CL_INVALID_KERNEL_ARGS"},
                               {-54, "CL_INVALID_WORK_GROUP_SIZE"},
                               {-55, "CL_INVALID_WORK_ITEM_SIZE"},
                               {-40, "CL_INVALID_IMAGE_SIZE"},
                               {kInvalidBufferSize, "CL_INVALID_BUFFER_SIZE"},
                               {-59, "CL_INVALID_OPERATION"},
                               {-63, "CL_INVALID_GLOBAL_WORK_SIZE"},
                               {-1001, "CL_PLATFORM_NOT_FOUND_KHR"}};

template <typename F>
void resolve(void* library, const char* name, F* function) {
  void* found = dlsym(library, name);
  if (!found) {
    fail(ARK_EXECUTOR_FAILED, std::string("the OpenCL driver has no ") + name, "OpenCL 1.2",
         "update the driver");
  }
  *function = reinterpret_cast<F>(found);
}

Api open() {
  void* library = nullptr;
  for (const char* name : kLibraries) {
    if (!library) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  if (!library) {
    fail(ARK_EXECUTOR_FAILED, "no OpenCL driver (libOpenCL.so.1) can be opened", "one",
         "install the device's driver, or run on the CPU: --on cpu");
  }
  Api api{};
#define ARK_RESOLVE(name) resolve(library, "cl" #name, &api.name)
  ARK_RESOLVE(GetPlatformIDs);
  ARK_RESOLVE(GetPlatformInfo);
  ARK_RESOLVE(GetDeviceIDs);
  ARK_RESOLVE(GetDeviceInfo);
  ARK_RESOLVE(CreateContext);
  ARK_RESOLVE(ReleaseContext);
  ARK_RESOLVE(CreateCommandQueue);
  ARK_RESOLVE(ReleaseCommandQueue);
  ARK_RESOLVE(CreateBuffer);
  ARK_RESOLVE(CreateImage);
  ARK_RESOLVE(ReleaseMemObject);
  ARK_RESOLVE(CreateProgramWithSource);
  ARK_RESOLVE(CreateProgramWithBinary);
  ARK_RESOLVE(BuildProgram);
  ARK_RESOLVE(GetProgramBuildInfo);
  ARK_RESOLVE(GetProgramInfo);
  ARK_RESOLVE(ReleaseProgram);
  ARK_RESOLVE(CreateKernel);
  ARK_RESOLVE(GetKernelInfo);
  ARK_RESOLVE(GetKernelWorkGroupInfo);
  ARK_RESOLVE(ReleaseKernel);
  ARK_RESOLVE(SetKernelArg);
  ARK_RESOLVE(EnqueueNDRangeKernel);
  ARK_RESOLVE(EnqueueReadBuffer);
  ARK_RESOLVE(EnqueueWriteBuffer);
  ARK_RESOLVE(EnqueueCopyBuffer);
  ARK_RESOLVE(Flush);
  ARK_RESOLVE(Finish);
#undef ARK_RESOLVE
  return api;
}

}  // namespace

const Api& api() {
  static const Api opened = open();
  return opened;
}

std::string code_name(int32_t code) {
  for (const CodeName& known : kCodes) {
    if (known.code == code) return known.name;
  }
  return "OpenCL error " + std::to_string(code);
}

void check(int32_t code, const std::string& what) {
  if (code == kSuccess) return;
  bool memory = code == kObjectAllocationFailure || code == kOutOfResources ||
                code == kOutOfHostMemory || code == kInvalidBufferSize;
  fail(memory ? ARK_OUT_OF_MEMORY : ARK_EXECUTOR_FAILED, what + ": " + code_name(code), "",
       memory ? "load with a smaller context" : "run on the CPU: --on cpu");
}

}  // namespace cl
}  // namespace ark
