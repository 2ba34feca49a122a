// The part of the CUDA driver API that the launcher uses. The driver is opened at run time, so that
// the library needs none to be there; names and values are those of NVIDIA's cuda.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace ark {
namespace cu {

using Device = int;
using Address = unsigned long long;  // of device memory
using Context = struct OpaqueContext*;
using Stream = struct OpaqueStream*;
using Module = struct OpaqueModule*;
using Function = struct OpaqueFunction*;
using Graph = struct OpaqueGraph*;
using Node = struct OpaqueNode*;
using GraphExec = struct OpaqueGraphExec*;

constexpr int kSuccess = 0;
constexpr int kOutOfMemory = 2;
constexpr int kNoDevice = 100;
constexpr int kInvalidImage = 200;
constexpr int kNoBinaryForGpu = 209;
constexpr int kNoTranslator = 221;
constexpr int kUnsupportedPtxVersion = 222;
constexpr int kIllegalAddress = 700;
constexpr int kLaunchTimeout = 702;
constexpr int kLaunchFailed = 719;

constexpr int kMaxThreadsPerBlock = 1;  // attributes of a device
constexpr int kIntegrated = 18;
constexpr int kCapabilityMajor = 75;
constexpr int kCapabilityMinor = 76;
constexpr int kMaxSharedOptIn = 97;
constexpr int kFunctionSharedBytes = 1;  // attributes of a function
constexpr int kFunctionMaxDynamicShared = 8;
constexpr unsigned kStreamNonBlocking = 1;
constexpr unsigned kAttachGlobal = 1;  // managed memory: every stream may use it
constexpr unsigned kAttachHost = 2;    // only the host may

// A kernel of a graph. The driver's first version of it ends before `kernel`; longer ones are read
// only by the functions of later versions.
struct KernelNode {
  Function function;
  unsigned grid[3];
  unsigned block[3];
  unsigned shared_bytes;
  void** parameters;
  void** extra;
  void* kernel;
  Context context;
};

// Every function that is used, by name without "cu".
struct Api {
  int (*Init)(unsigned);
  int (*DriverGetVersion)(int*);
  int (*GetErrorName)(int, const char**);
  int (*DeviceGetCount)(int*);
  int (*DeviceGet)(Device*, int);
  int (*DeviceGetName)(char*, int, Device);
  int (*DeviceGetAttribute)(int*, int, Device);
  int (*DevicePrimaryCtxRetain)(Context*, Device);
  int (*DevicePrimaryCtxRelease)(Device);
  int (*CtxSetCurrent)(Context);
  int (*StreamCreate)(Stream*, unsigned);
  int (*StreamDestroy)(Stream);
  int (*StreamSynchronize)(Stream);
  int (*StreamAttachMemAsync)(Stream, Address, size_t, unsigned);
  int (*MemAlloc)(Address*, size_t);
  int (*MemAllocManaged)(Address*, size_t, unsigned);
  int (*MemFree)(Address);
  int (*MemAllocHost)(void**, size_t);
  int (*MemFreeHost)(void*);
  int (*MemcpyHtoD)(Address, const void*, size_t);
  int (*MemcpyHtoDAsync)(Address, const void*, size_t, Stream);
  int (*MemcpyDtoHAsync)(void*, Address, size_t, Stream);
  int (*MemcpyDtoDAsync)(Address, Address, size_t, Stream);
  int (*MemsetD8Async)(Address, unsigned char, size_t, Stream);
  int (*ModuleLoadData)(Module*, const void*);
  int (*ModuleUnload)(Module);
  int (*ModuleGetFunction)(Function*, Module, const char*);
  int (*FuncGetAttribute)(int*, int, Function);
  int (*FuncSetAttribute)(Function, int, int);
  int (*FuncGetParamInfo)(Function, size_t, size_t*, size_t*);  // null before CUDA 12.4
  int (*LaunchKernel)(Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                      unsigned, Stream, void**, void**);
  int (*GraphCreate)(Graph*, unsigned);
  int (*GraphDestroy)(Graph);
  int (*GraphAddKernelNode)(Node*, Graph, const Node*, size_t, const KernelNode*);
  int (*GraphInstantiate)(GraphExec*, Graph, unsigned long long);
  int (*GraphExecDestroy)(GraphExec);
  int (*GraphExecKernelNodeSetParams)(GraphExec, Node, const KernelNode*);
  int (*GraphNodeSetEnabled)(GraphExec, Node, unsigned);
  int (*GraphLaunch)(GraphExec, Stream);
};

// The driver's functions, opened once and never closed, cuInit called. ARK_CUDA_LIBRARY, an
// absolute path, names another library than libcuda.so.1; a program that runs with more rights than
// its user (setuid) ignores it. Raises ARK_EXECUTOR_FAILED.
const Api& api();

// "CUDA_ERROR_OUT_OF_MEMORY" for 2.
std::string code_name(int code);
// Raises ARK_OUT_OF_MEMORY or ARK_EXECUTOR_FAILED, with what helps, unless the code is kSuccess.
void check(int code, const std::string& what);

// Destroys what the driver made.
template <typename T, int (*Api::*destroy)(T)>
class Handle {
 public:
  Handle() = default;
  explicit Handle(T object) : object_(object) {}
  ~Handle() {
    if (object_) (api().*destroy)(object_);
  }
  Handle(Handle&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  T get() const { return object_; }
  T* out() { return &object_; }  // for the driver to fill

 private:
  T object_ = nullptr;
};

// What the driver is made for: 12060 is CUDA 12.6.
int driver_version();
std::string version_text(int version);

}  // namespace cu
}  // namespace ark
