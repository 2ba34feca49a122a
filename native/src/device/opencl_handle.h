// Releases an OpenCL object.
#pragma once

#include <utility>

#include "device/opencl_api.h"

namespace ark {

template <typename T, int32_t (*cl::Api::*release)(T)>
class ClHandle {
 public:
  ClHandle() = default;
  explicit ClHandle(T object) : object_(object) {}
  ClHandle(ClHandle&& other) noexcept : object_(other.object_) { other.object_ = nullptr; }
  ClHandle& operator=(ClHandle&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ClHandle(const ClHandle&) = delete;
  ClHandle& operator=(const ClHandle&) = delete;
  ~ClHandle() {
    if (object_) (cl::api().*release)(object_);
  }
  T get() const { return object_; }

 private:
  T object_ = nullptr;
};

using ClMemory = ClHandle<cl::Memory, &cl::Api::ReleaseMemObject>;
using ClKernel = ClHandle<cl::Kernel, &cl::Api::ReleaseKernel>;
using ClProgram = ClHandle<cl::Program, &cl::Api::ReleaseProgram>;

}  // namespace ark
