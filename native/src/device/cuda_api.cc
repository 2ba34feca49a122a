#include "device/cuda_api.h"

#include <dlfcn.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

#include <cstdlib>

#include "error.h"

namespace ark {
namespace cu {
namespace {

// The last is where Windows' subsystem for Linux has it; Jetson's tegra folder is searched anyway.
constexpr const char* kLibraries[] = {"libcuda.so.1", "libcuda.so",
                                      "/usr/lib/wsl/lib/libcuda.so.1"};
// The newest function that is used, cuGraphNodeSetEnabled, came with this one.
constexpr const char* kOldestDriver = "a driver of CUDA 11.6 or newer";

struct CodeName {
  int code;
  const char* name;
  const char* remedy;
};
constexpr const char* kLookAtDriver = "look whether nvidia-smi works; reinstall the driver if not";
constexpr const char* kRestart = "restart the machine, which loads the driver that is installed";
// For drivers that fail before they can be asked.
constexpr CodeName kStartCodes[] = {
    {3, "CUDA_ERROR_NOT_INITIALIZED", kLookAtDriver},
    {34, "CUDA_ERROR_STUB_LIBRARY", "take the toolkit's folder 'stubs' out of LD_LIBRARY_PATH"},
    {kNoDevice, "CUDA_ERROR_NO_DEVICE",
     "run on a machine with an NVIDIA GPU, or compile with --target cpu"},
    {802, "CUDA_ERROR_SYSTEM_NOT_READY",
     "wait for the driver's services, such as its fabric manager"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", kRestart},
    {804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
     "take CUDA's folder 'compat' out of LD_LIBRARY_PATH, or update the driver"},
    {999, "CUDA_ERROR_UNKNOWN", kLookAtDriver}};

struct CodeRemedy {
  int code;
  const char* remedy;
};
constexpr const char* kStartAgain =
    "start the process again, whose GPU context is lost; run with --target cpu if it repeats";
constexpr CodeRemedy kRemedies[] = {
    {kInvalidImage, "compile the bundle for this device and driver again"},
    {kNoBinaryForGpu, "compile the bundle for this device"},
    {kNoTranslator,
     "install all of the driver (libnvidia-ptxjitcompiler), or compile for the "
     "device itself, as in --target h100"},
    {kIllegalAddress, kStartAgain},
    {kLaunchTimeout, kStartAgain},
    {kLaunchFailed, kStartAgain}};

const char* named_library() {
#if defined(__linux__)
  if (getauxval(AT_SECURE) != 0) return nullptr;
#endif
  const char* path = std::getenv("ARK_CUDA_LIBRARY");
  if (!path || !*path) return nullptr;
  if (*path != '/') {
    fail(ARK_EXECUTOR_FAILED, "ARK_CUDA_LIBRARY is " + quote(path), "an absolute path",
         "unset it to use the driver");
  }
  return path;
}

void* open_library() {
  if (const char* path = named_library()) {
    if (void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL)) return library;
    const char* reason = dlerror();
    fail(ARK_EXECUTOR_FAILED,
         "ARK_CUDA_LIBRARY cannot be opened (" + std::string(reason ? reason : "") + ")",
         "a CUDA driver", "unset it to use the driver");
  }
  for (const char* name : kLibraries) {
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  }
  fail(ARK_EXECUTOR_FAILED, "no CUDA driver (libcuda.so.1) can be opened", "one",
       "install NVIDIA's driver, or compile the model with --target cpu");
}

template <typename F>
bool find(void* library, const char* name, F* function) {
  void* found = dlsym(library, name);
  *function = reinterpret_cast<F>(found);
  return found != nullptr;
}

// The first of two names that the driver has.
template <typename F>
void resolve(void* library, const char* name, const char* other, F* function) {
  if (find(library, name, function) || (other && find(library, other, function))) return;
  fail(ARK_EXECUTOR_FAILED, std::string("the CUDA driver has no ") + name, kOldestDriver,
       "update the driver");
}

Api open() {
  void* library = open_library();
  Api api{};
#define ARK_RESOLVE(name) resolve(library, "cu" #name, nullptr, &api.name)
#define ARK_RESOLVE_AS(name, exported, other) resolve(library, exported, other, &api.name)
  ARK_RESOLVE(DriverGetVersion);
  ARK_RESOLVE(Init);
  ARK_RESOLVE(GetErrorName);
  ARK_RESOLVE(DeviceGetCount);
  ARK_RESOLVE(DeviceGet);
  ARK_RESOLVE(DeviceGetName);
  ARK_RESOLVE(DeviceGetAttribute);
  ARK_RESOLVE(DevicePrimaryCtxRetain);
  ARK_RESOLVE_AS(DevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", nullptr);
  ARK_RESOLVE(CtxSetCurrent);
  ARK_RESOLVE(StreamCreate);
  ARK_RESOLVE_AS(StreamDestroy, "cuStreamDestroy_v2", nullptr);
  ARK_RESOLVE(StreamSynchronize);
  ARK_RESOLVE(StreamAttachMemAsync);
  ARK_RESOLVE_AS(MemAlloc, "cuMemAlloc_v2", nullptr);
  ARK_RESOLVE(MemAllocManaged);
  ARK_RESOLVE_AS(MemFree, "cuMemFree_v2", nullptr);
  ARK_RESOLVE_AS(MemAllocHost, "cuMemAllocHost_v2", nullptr);
  ARK_RESOLVE(MemFreeHost);
  ARK_RESOLVE_AS(MemcpyHtoD, "cuMemcpyHtoD_v2", nullptr);
  ARK_RESOLVE_AS(MemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", nullptr);
  ARK_RESOLVE_AS(MemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", nullptr);
  ARK_RESOLVE_AS(MemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2", nullptr);
  ARK_RESOLVE(MemsetD8Async);
  ARK_RESOLVE(ModuleLoadData);
  ARK_RESOLVE(ModuleUnload);
  ARK_RESOLVE(ModuleGetFunction);
  ARK_RESOLVE(FuncGetAttribute);
  ARK_RESOLVE(FuncSetAttribute);
  find(library, "cuFuncGetParamInfo", &api.FuncGetParamInfo);
  ARK_RESOLVE(LaunchKernel);
  ARK_RESOLVE(GraphCreate);
  ARK_RESOLVE(GraphDestroy);
  ARK_RESOLVE_AS(GraphAddKernelNode, "cuGraphAddKernelNode_v2", "cuGraphAddKernelNode");
  ARK_RESOLVE_AS(GraphInstantiate, "cuGraphInstantiateWithFlags", nullptr);
  ARK_RESOLVE(GraphExecDestroy);
  ARK_RESOLVE_AS(GraphExecKernelNodeSetParams, "cuGraphExecKernelNodeSetParams_v2",
                 "cuGraphExecKernelNodeSetParams");
  ARK_RESOLVE(GraphNodeSetEnabled);
  ARK_RESOLVE(GraphLaunch);
#undef ARK_RESOLVE
#undef ARK_RESOLVE_AS
  int code = api.Init(0);
  if (code != kSuccess) {
    std::string name = "CUDA error " + std::to_string(code);
    const char* remedy = kLookAtDriver;
    for (const CodeName& known : kStartCodes) {
      if (known.code != code) continue;
      name = known.name;
      remedy = known.remedy;
    }
    fail(ARK_EXECUTOR_FAILED, "starting the CUDA driver: " + name, "a GPU and its driver", remedy);
  }
  return api;
}

}  // namespace

const Api& api() {
  static const Api opened = open();
  return opened;
}

std::string code_name(int code) {
  const char* name = nullptr;
  if (api().GetErrorName(code, &name) == kSuccess && name) return name;
  return "CUDA error " + std::to_string(code);
}

void check(int code, const std::string& what) {
  if (code == kSuccess) return;
  if (code == kOutOfMemory) {
    fail(ARK_OUT_OF_MEMORY, what + ": " + code_name(code), "",
         "load with a smaller context, compile with fewer bits, or close what else uses the GPU");
  }
  std::string remedy = "run the same model with --target cpu";
  for (const CodeRemedy& known : kRemedies) {
    if (known.code == code) remedy = known.remedy;
  }
  if (code == kUnsupportedPtxVersion) {
    remedy = "update the driver (it is of " + version_text(driver_version()) +
             "), or compile for the device itself, as in --target h100";
  }
  fail(ARK_EXECUTOR_FAILED, what + ": " + code_name(code), "", remedy);
}

int driver_version() {
  int version = 0;
  check(api().DriverGetVersion(&version), "asking for the driver's version");
  return version;
}

std::string version_text(int version) {
  return "CUDA " + std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace cu
}  // namespace ark
