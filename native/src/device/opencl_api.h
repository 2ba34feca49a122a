// The part of OpenCL 1.2 that the launcher uses. The driver is opened at run time, so that the
// library needs none to be there; names and values are those of the Khronos specification.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace ark {
namespace cl {

using Platform = struct OpaquePlatform*;
using Device = struct OpaqueDevice*;
using Context = struct OpaqueContext*;
using Queue = struct OpaqueQueue*;
using Memory = struct OpaqueMemory*;
using Program = struct OpaqueProgram*;
using Kernel = struct OpaqueKernel*;
using Event = struct OpaqueEvent*;

constexpr int32_t kSuccess = 0;
constexpr uint32_t kPlatformName = 0x0902;
constexpr uint64_t kDeviceTypeAll = 0xFFFFFFFF;
constexpr uint64_t kDeviceTypeGpu = 1 << 2;
constexpr uint32_t kDeviceType = 0x1000;
constexpr uint32_t kDeviceMaxGroupSize = 0x1004;
constexpr uint32_t kDeviceMaxAllocation = 0x1010;
constexpr uint32_t kDeviceMemory = 0x101F;
constexpr uint32_t kDeviceSharedMemory = 0x1023;
constexpr uint32_t kDeviceName = 0x102B;
constexpr uint32_t kDriverVersion = 0x102D;
constexpr uint32_t kDeviceVersion = 0x102F;
constexpr uint32_t kDeviceExtensions = 0x1030;
constexpr uint32_t kDeviceUnifiedMemory = 0x1035;
constexpr uint32_t kDeviceLanguageVersion = 0x103D;
constexpr uint32_t kDeviceImageBufferWidth = 0x1040;
constexpr uint64_t kReadWrite = 1 << 0;
constexpr uint64_t kReadOnly = 1 << 2;
constexpr uint64_t kUseHostPointer = 1 << 3;
constexpr uint64_t kCopyHostPointer = 1 << 5;
constexpr uint32_t kRgba = 0x10B5;
constexpr uint32_t kUnsignedInt32 = 0x10DC;
constexpr uint32_t kImageOfBuffer = 0x10F6;
constexpr uint32_t kBuildLog = 0x1183;
constexpr uint32_t kProgramBinarySizes = 0x1165;
constexpr uint32_t kProgramBinaries = 0x1166;
constexpr uint32_t kKernelArguments = 0x1191;
constexpr uint32_t kKernelGroupSize = 0x11B0;

struct ImageFormat {
  uint32_t order, type;
};
struct ImageDescription {
  uint32_t type;
  size_t width, height, depth, array_size, row_pitch, slice_pitch;
  uint32_t mip_levels, samples;
  Memory buffer;
};

// Every function that is used, by name.
struct Api {
  int32_t (*GetPlatformIDs)(uint32_t, Platform*, uint32_t*);
  int32_t (*GetPlatformInfo)(Platform, uint32_t, size_t, void*, size_t*);
  int32_t (*GetDeviceIDs)(Platform, uint64_t, uint32_t, Device*, uint32_t*);
  int32_t (*GetDeviceInfo)(Device, uint32_t, size_t, void*, size_t*);
  Context (*CreateContext)(const intptr_t*, uint32_t, const Device*,
                           void (*)(const char*, const void*, size_t, void*), void*, int32_t*);
  int32_t (*ReleaseContext)(Context);
  Queue (*CreateCommandQueue)(Context, Device, uint64_t, int32_t*);
  int32_t (*ReleaseCommandQueue)(Queue);
  Memory (*CreateBuffer)(Context, uint64_t, size_t, void*, int32_t*);
  Memory (*CreateImage)(Context, uint64_t, const ImageFormat*, const ImageDescription*, void*,
                        int32_t*);
  int32_t (*ReleaseMemObject)(Memory);
  Program (*CreateProgramWithSource)(Context, uint32_t, const char**, const size_t*, int32_t*);
  Program (*CreateProgramWithBinary)(Context, uint32_t, const Device*, const size_t*,
                                     const unsigned char**, int32_t*, int32_t*);
  int32_t (*BuildProgram)(Program, uint32_t, const Device*, const char*, void (*)(Program, void*),
                          void*);
  int32_t (*GetProgramBuildInfo)(Program, Device, uint32_t, size_t, void*, size_t*);
  int32_t (*GetProgramInfo)(Program, uint32_t, size_t, void*, size_t*);
  int32_t (*ReleaseProgram)(Program);
  Kernel (*CreateKernel)(Program, const char*, int32_t*);
  int32_t (*GetKernelInfo)(Kernel, uint32_t, size_t, void*, size_t*);
  int32_t (*GetKernelWorkGroupInfo)(Kernel, Device, uint32_t, size_t, void*, size_t*);
  int32_t (*ReleaseKernel)(Kernel);
  int32_t (*SetKernelArg)(Kernel, uint32_t, size_t, const void*);
  int32_t (*EnqueueNDRangeKernel)(Queue, Kernel, uint32_t, const size_t*, const size_t*,
                                  const size_t*, uint32_t, const Event*, Event*);
  int32_t (*EnqueueReadBuffer)(Queue, Memory, uint32_t, size_t, size_t, void*, uint32_t,
                               const Event*, Event*);
  int32_t (*EnqueueWriteBuffer)(Queue, Memory, uint32_t, size_t, size_t, const void*, uint32_t,
                                const Event*, Event*);
  int32_t (*EnqueueCopyBuffer)(Queue, Memory, Memory, size_t, size_t, size_t, uint32_t,
                               const Event*, Event*);
  int32_t (*Flush)(Queue);
  int32_t (*Finish)(Queue);
};

// The driver's functions, opened once and never closed. Raises ARK_EXECUTOR_FAILED.
const Api& api();

// "CL_OUT_OF_RESOURCES" for -5.
std::string code_name(int32_t code);
// Raises ARK_OUT_OF_MEMORY or ARK_EXECUTOR_FAILED unless the code is kSuccess.
void check(int32_t code, const std::string& what);

}  // namespace cl
}  // namespace ark
