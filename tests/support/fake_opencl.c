// An OpenCL library with one device of version 1.1. The launcher asks it for nothing but names.
#include <stdint.h>
#include <string.h>

static int32_t give(const char* text, size_t size, void* value, size_t* needed) {
  if (needed) *needed = strlen(text) + 1;
  if (value && size > strlen(text)) strcpy(value, text);
  return 0;
}

static int32_t count(uint32_t* found, void** list, const char* one) {
  if (found) *found = 1;
  if (list) *list = (void*)one;
  return 0;
}

int32_t clGetPlatformIDs(uint32_t most, void** platforms, uint32_t* found) {
  return count(found, most ? platforms : 0, "platform");
}

int32_t clGetDeviceIDs(void* platform, uint64_t type, uint32_t most, void** devices,
                       uint32_t* found) {
  return count(found, most ? devices : 0, "device");
}

int32_t clGetPlatformInfo(void* platform, uint32_t what, size_t size, void* value, size_t* needed) {
  return give("old platform", size, value, needed);
}

int32_t clGetDeviceInfo(void* device, uint32_t what, size_t size, void* value, size_t* needed) {
  if (what == 0x1000) {  // the type
    memset(value, 0, size);
    return 0;
  }
  return give(what == 0x102B ? "old device" : "OpenCL 1.1 old", size, value, needed);
}

#define NEVER(name) \
  int32_t name(void) { return -1; }
NEVER(clCreateContext)
NEVER(clReleaseContext)
NEVER(clCreateCommandQueue)
NEVER(clReleaseCommandQueue)
NEVER(clCreateBuffer)
NEVER(clCreateImage)
NEVER(clReleaseMemObject)
NEVER(clCreateProgramWithSource)
NEVER(clCreateProgramWithBinary)
NEVER(clBuildProgram)
NEVER(clGetProgramBuildInfo)
NEVER(clGetProgramInfo)
NEVER(clReleaseProgram)
NEVER(clCreateKernel)
NEVER(clGetKernelInfo)
NEVER(clGetKernelWorkGroupInfo)
NEVER(clReleaseKernel)
NEVER(clSetKernelArg)
NEVER(clEnqueueNDRangeKernel)
NEVER(clEnqueueReadBuffer)
NEVER(clEnqueueWriteBuffer)
NEVER(clEnqueueCopyBuffer)
NEVER(clFlush)
NEVER(clFinish)
