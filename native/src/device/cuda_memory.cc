#include "device/cuda_memory.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "error.h"

namespace ark {

CudaMemory::CudaMemory(int64_t bytes, const std::string& what, bool managed) {
  const auto size = static_cast<size_t>(std::max<int64_t>(bytes, 4));
  int code = managed ? cu::api().MemAllocManaged(&address_, size, cu::kAttachHost)
                     : cu::api().MemAlloc(&address_, size);
  cu::check(code, std::to_string(size) + " bytes for " + what);
}

CudaMemory::~CudaMemory() {
  if (address_ != 0) cu::api().MemFree(address_);
}

CudaMemory::CudaMemory(CudaMemory&& other) noexcept : address_(std::exchange(other.address_, 0)) {}

CudaMemory& CudaMemory::operator=(CudaMemory&& other) noexcept {
  std::swap(address_, other.address_);
  return *this;
}

CudaHostMemory::CudaHostMemory(int64_t bytes) {
  int code = cu::api().MemAllocHost(&data_, static_cast<size_t>(bytes));
  const std::string what = std::to_string(bytes) + " bytes of the host's memory";
  if (code == cu::kOutOfMemory) {
    fail(ARK_OUT_OF_MEMORY, what + ": " + cu::code_name(code), "",
         "close other programs, or allow this one to lock more memory (ulimit -l)");
  }
  cu::check(code, what);
}

CudaHostMemory::~CudaHostMemory() {
  if (data_) cu::api().MemFreeHost(data_);
}

std::shared_ptr<const CudaWeights> CudaWeights::of(const char* weights, int64_t bytes,
                                                   std::shared_ptr<CudaDevice> device) {
  static std::mutex mutex;
  static std::map<const char*, std::weak_ptr<const CudaWeights>> known;
  std::lock_guard<std::mutex> lock(mutex);
  std::weak_ptr<const CudaWeights>& entry = known[weights];
  std::shared_ptr<const CudaWeights> found = entry.lock();
  if (!found) {
    found = std::make_shared<const CudaWeights>(weights, bytes, std::move(device));
    entry = found;
  }
  return found;
}

CudaWeights::CudaWeights(const char* weights, int64_t bytes, std::shared_ptr<CudaDevice> device)
    : device_(std::move(device)), memory_(bytes, "the weights", device_->integrated()) {
  const auto size = static_cast<size_t>(bytes);
  if (!device_->integrated()) {
    cu::check(cu::api().MemcpyHtoD(memory_.address(), weights, size), "copying the weights");
    // From memory that is not pinned the last part may still be on its way, and the streams of
    // sessions do not wait for this one.
    cu::check(cu::api().StreamSynchronize(nullptr), "copying the weights");
    return;
  }
  // While it is the host's alone, the host may write it beside kernels that run.
  std::memcpy(reinterpret_cast<void*>(memory_.address()), weights, size);
  cu::check(cu::api().StreamAttachMemAsync(nullptr, memory_.address(), 0, cu::kAttachGlobal),
            "giving the weights to " + device_->name());
  cu::check(cu::api().StreamSynchronize(nullptr), "giving the weights to " + device_->name());
}

CudaWeights::~CudaWeights() { device_->use(); }

}  // namespace ark
