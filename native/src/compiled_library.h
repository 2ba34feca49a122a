// The functions of a bundle's own library (kernels.so), which TVM compiled ahead of time.
#pragma once

#include <cstdint>
#include <string>

#include "kernel.h"
#include "mapped_file.h"

namespace ark {

// How TVM's code is called and calls back: its C ABI, as far as ahead-of-time functions use it.
namespace tvm_abi {

struct Any {
  int32_t type;
  int32_t zero;
  union {
    int64_t integer;
    void* pointer;
  };
};
constexpr int32_t kInteger = 1;
constexpr int32_t kTensor = 7;  // a pointer to a Tensor

// DLPack's tensor.
struct Tensor {
  void* data;
  int32_t device_type, device_id;
  int32_t rank;
  uint8_t code, bits;
  uint16_t lanes;
  const int64_t* shape;
  const int64_t* strides;
  uint64_t byte_offset;
};

using Function = int32_t (*)(void* self, const Any* arguments, int32_t count, Any* result);

}  // namespace tvm_abi

class CompiledLibrary {
 public:
  // Opens the library that a file holds, whose checksum has been compared. Raises
  // ARK_INVALID_BUNDLE when this machine cannot run it.
  CompiledLibrary(const MappedFile& file, Isa isa);
  ~CompiledLibrary();
  CompiledLibrary(const CompiledLibrary&) = delete;
  CompiledLibrary& operator=(const CompiledLibrary&) = delete;

  // Raises ARK_INVALID_BUNDLE when it has no such function.
  tvm_abi::Function find(const std::string& function) const;

 private:
  // Open while the library is: its number is part of the name by which the loader knows it.
  int copy_ = -1;
  void* handle_ = nullptr;
};

// What a function runs with: a pool, and memory for each of its threads.
struct CompiledContext {
  const Parallel* parallel;
  char* workspace;
  int64_t workspace_bytes;  // of each thread
  int64_t groups;           // rounds of the function's loop: more tasks would be idle
};
// Calls a function of a library. Raises ARK_EXECUTOR_FAILED when it reports a failure.
void call_compiled(tvm_abi::Function function, const tvm_abi::Any* arguments, int32_t count,
                   const CompiledContext& context);

}  // namespace ark
