#include "device/cuda_device.h"

#include <algorithm>
#include <iterator>
#include <mutex>

#include "error.h"

namespace ark {
namespace {

constexpr int kNameBytes = 256;
// Capabilities of Tegra: their machine code runs on nothing else, and nothing else's on them
// (CUDA C++ Programming Guide, "Binary Compatibility").
constexpr int kTegra[] = {53, 62, 72, 87, 101, 110};

bool is_tegra(int capability) {
  return std::find(std::begin(kTegra), std::end(kTegra), capability) != std::end(kTegra);
}

bool runs(const LaunchCode& code, int capability) {
  if (code.is_ptx) return capability >= code.capability;
  if (capability == code.capability) return true;
  return capability / 10 == code.capability / 10 && capability > code.capability &&
         !is_tegra(capability) && !is_tegra(code.capability);
}

}  // namespace

std::shared_ptr<CudaDevice> CudaDevice::open() {
  static std::mutex mutex;
  static std::weak_ptr<CudaDevice> opened;
  std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<CudaDevice> device = opened.lock();
  if (!device) {
    device = std::make_shared<CudaDevice>();
    opened = device;
  }
  return device;
}

CudaDevice::CudaDevice() {
  int count = 0;
  cu::check(cu::api().DeviceGetCount(&count), "counting CUDA devices");
  if (count == 0) {
    fail(ARK_EXECUTOR_FAILED, "the CUDA driver shows no device", "one",
         "look whether nvidia-smi lists it, and at CUDA_VISIBLE_DEVICES");
  }
  cu::check(cu::api().DeviceGet(&device_, 0), "choosing the first CUDA device");
  char name[kNameBytes] = "";
  cu::check(cu::api().DeviceGetName(name, kNameBytes - 1, device_), "asking for the device's name");
  name_ = name;
  capability_ = 10 * attribute(cu::kCapabilityMajor) + attribute(cu::kCapabilityMinor);
  integrated_ = attribute(cu::kIntegrated) != 0;
  cu::check(cu::api().DevicePrimaryCtxRetain(&context_, device_), "opening " + name_);
}

CudaDevice::~CudaDevice() { cu::api().DevicePrimaryCtxRelease(device_); }

void CudaDevice::make_current() const { cu::check(use(), "using " + name_); }

int CudaDevice::attribute(int what) const {
  int value = 0;
  cu::check(cu::api().DeviceGetAttribute(&value, what, device_),
            "asking " + name_ + " for its limits");
  return value;
}

void check_architecture(const LaunchCode& code, const CudaDevice& device) {
  if (runs(code, device.capability())) return;
  const std::string own = "sm_" + std::to_string(device.capability());
  fail(ARK_EXECUTOR_FAILED,
       "this bundle's kernels are for " + code.architecture + ", and " + device.name() + " is " +
           own,
       "kernels for " + own, "compile for it: arkinfer devices lists the names for --target");
}

}  // namespace ark
