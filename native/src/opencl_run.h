// A plan on an OpenCL device (device_run.h).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "device_run.h"
#include "opencl_device.h"

namespace ark {

// Releases an OpenCL object.
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

class OpenClRun : public DeviceRun {
 public:
  OpenClRun(const DeviceModel& model, int64_t capacity, const std::atomic<bool>* cancelled);

  void run_body(const int32_t* tokens, int64_t n, int64_t past, int64_t total) override;
  void run_head(int64_t first_row, int64_t rows, float* logits) override;
  std::vector<int32_t> kept_row(int32_t layer) const override;
  void set_trace(Trace trace) override { trace_ = std::move(trace); }
  const std::string& name() const override { return device_.name; }

 private:
  using ClMemory = ClHandle<cl::Memory, &cl::Api::ReleaseMemObject>;

  // A launch with its kernel; buffers are bound, scalars are set before each call.
  struct BoundLaunch {
    const Launch* launch;
    ClHandle<cl::Kernel, &cl::Api::ReleaseKernel> kernel;
  };
  struct BoundStep {
    const LaunchStep* step;
    std::vector<BoundLaunch> launches;
  };

  void build(const DeviceModel& model);
  ClMemory allocate(int64_t bytes, const std::string& what);
  void upload_weights(const DeviceModel& model);
  std::vector<BoundStep> bind(const std::vector<LaunchStep>& steps);
  cl::Memory memory_of(const LaunchArgument& argument) const;
  void run_steps(const std::vector<BoundStep>& steps, LaunchScalars scalars);
  void launch(const BoundStep& step, const BoundLaunch& bound, const LaunchScalars& scalars);
  void keep(const LaunchStep& step, int64_t tokens);
  void report(const LaunchStep& step, int64_t rows, double seconds);

  const LaunchPlan& plan_;
  int64_t capacity_;
  int64_t vocab_size_;
  const std::atomic<bool>* cancelled_;
  OpenClDevice device_;
  size_t most_lanes_ = 0;
  ClHandle<cl::Context, &cl::Api::ReleaseContext> context_;
  ClHandle<cl::Queue, &cl::Api::ReleaseCommandQueue> queue_;
  ClHandle<cl::Program, &cl::Api::ReleaseProgram> program_;
  std::vector<ClMemory> slots_, weights_, caches_;
  std::vector<BoundStep> body_, head_;
  std::vector<std::vector<int32_t>> kept_;  // by layer
  Trace trace_;
};

}  // namespace ark
