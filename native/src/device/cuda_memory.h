// Memory on a CUDA device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "device/cuda_device.h"

namespace ark {

// Freed with its owner, whose device is then current.
class CudaMemory {
 public:
  CudaMemory() = default;
  // Uninitialized. `managed`: the host's, until it is attached to streams. Raises
  // ARK_OUT_OF_MEMORY, naming `what`.
  CudaMemory(int64_t bytes, const std::string& what, bool managed = false);
  ~CudaMemory();
  CudaMemory(CudaMemory&& other) noexcept;
  CudaMemory& operator=(CudaMemory&& other) noexcept;
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;

  cu::Address address() const { return address_; }

 private:
  cu::Address address_ = 0;
};

// Memory of the host that the device reads and writes at full speed.
class CudaHostMemory {
 public:
  explicit CudaHostMemory(int64_t bytes);
  ~CudaHostMemory();
  CudaHostMemory(const CudaHostMemory&) = delete;
  CudaHostMemory& operator=(const CudaHostMemory&) = delete;

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

// weights.bin on the device, once for all sessions of a model.
//
// Where the GPU shares the host's memory the file is read into managed memory and used in place.
// NVIDIA's "CUDA for Tegra" gives the reason: registering the mapped file would save even that, but
// the GPU does not cache registered host memory, and products of many rows read weights repeatedly.
class CudaWeights {
 public:
  static std::shared_ptr<const CudaWeights> of(const char* weights, int64_t bytes,
                                               std::shared_ptr<CudaDevice> device);
  CudaWeights(const char* weights, int64_t bytes, std::shared_ptr<CudaDevice> device);
  ~CudaWeights();

  cu::Address address() const { return memory_.address(); }

 private:
  std::shared_ptr<CudaDevice> device_;
  CudaMemory memory_;
};

}  // namespace ark
