// What a session asks of a device that has the plan, its weights and its caches.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "device/launch_plan.h"

namespace ark {

class DeviceRun {
 public:
  // After a step, where somebody listens: its seconds, and its output [rows, columns] in float32
  // (null for other outputs).
  using Trace = std::function<void(const LaunchStep&, double seconds, const float* values,
                                   int64_t rows, int64_t columns)>;

  virtual ~DeviceRun() = default;

  // Runs the body for tokens that follow `past`. Raises ARK_CANCELLED between steps.
  virtual void run_body(const int32_t* tokens, int64_t n, int64_t past, int64_t total) = 0;
  // Runs the head for rows of the last body; waits for the logits, [rows, vocabulary].
  virtual void run_head(int64_t first_row, int64_t rows, float* logits) = 0;
  // The blocks that the body's last token chose in a layer: its row, or nothing.
  virtual std::vector<int32_t> kept_row(int32_t layer) const = 0;
  virtual void set_trace(Trace trace) = 0;

  // "PoCL ... on AMD ...", for messages.
  virtual const std::string& name() const = 0;
};

// Device memory of a session, beside the weights.
struct DeviceMemory {
  int64_t key_values = 0;
  int64_t compressed_keys = 0;
  int64_t slots = 0;
};
DeviceMemory device_memory(const LaunchPlan& plan, int64_t capacity);

// What a run is made from; it must outlive the run.
struct DeviceModel {
  const LaunchPlan* plan;
  const char* weights;
  int64_t weights_bytes;
  const char* source;  // text, or the modules that the plan lists
  size_t source_bytes;
  int64_t vocab_size;
  int64_t context;  // that the bundle was compiled for
  std::string id;   // of the bundle
};

// Opens the OpenCL driver and builds the source for a device (environment variable
// ARK_OPENCL_DEVICE: part of the name of one; else a GPU, else any). The first time, each kernel is
// compared with the CPU. Raises ARK_EXECUTOR_FAILED, with the build log for a source that does not
// build, and with the kernel for one that is wrong; and ARK_OUT_OF_MEMORY.
std::unique_ptr<DeviceRun> open_opencl(const DeviceModel& model, int64_t capacity,
                                       const std::atomic<bool>* cancelled);

// The device that open_opencl would take: its name, and below that its version and its driver's.
// Raises ARK_EXECUTOR_FAILED where there is none, and ARK_INVALID_ARGUMENT where none has the name
// that the environment asks for.
std::string opencl_identity();

// Opens the CUDA driver and loads the code on its first device. Raises ARK_EXECUTOR_FAILED, for
// code that is made for another architecture too, and ARK_OUT_OF_MEMORY.
std::unique_ptr<DeviceRun> open_cuda(const DeviceModel& model, int64_t capacity,
                                     const std::atomic<bool>* cancelled);

// Opens the system's Metal device and compiles the source for it. Raises ARK_EXECUTOR_FAILED, on
// other systems than Apple's always, and ARK_OUT_OF_MEMORY.
std::unique_ptr<DeviceRun> open_metal(const DeviceModel& model, int64_t capacity,
                                      const std::atomic<bool>* cancelled);

}  // namespace ark
