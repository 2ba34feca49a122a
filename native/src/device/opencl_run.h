// A plan on an OpenCL device (device_run.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "device/device_run.h"
#include "device/opencl_context.h"
#include "device/step_images.h"

namespace ark {

class OpenClRun : public DeviceRun, public StepRunner {
 public:
  OpenClRun(std::shared_ptr<const OpenClContext> context, const DeviceModel& model,
            int64_t capacity, const std::atomic<bool>* cancelled);

  void run_body(const int32_t* tokens, int64_t n, int64_t past, int64_t total) override;
  void run_head(int64_t first_row, int64_t rows, float* logits) override;
  std::vector<int32_t> kept_row(int32_t layer) const override;
  void set_trace(Trace trace) override { trace_ = std::move(trace); }
  const std::string& name() const override { return context_->device().name; }

  void write(LaunchArgument::Kind kind, size_t index, const std::vector<char>& bytes) override;
  void read(LaunchArgument::Kind kind, size_t index, std::vector<char>* bytes) override;
  void run(const LaunchStep& step, const LaunchScalars& scalars) override;

 private:
  // A launch with its kernel; buffers are bound, scalars are set before each call.
  struct BoundLaunch {
    const Launch* launch;
    ClKernel kernel;
  };
  struct BoundStep {
    const LaunchStep* step;
    std::vector<BoundLaunch> launches;
  };

  std::vector<BoundStep> bind(const std::vector<LaunchStep>& steps);
  cl::Memory memory_of(LaunchArgument::Kind kind, size_t index) const;
  void run_steps(const std::vector<BoundStep>& steps, LaunchScalars scalars);
  void run_launches(const BoundStep& step, const LaunchScalars& scalars);
  void launch(const BoundStep& step, const BoundLaunch& bound, const LaunchScalars& scalars);
  void keep(const LaunchStep& step, int64_t tokens);
  void report(const LaunchStep& step, int64_t rows, double seconds);

  std::shared_ptr<const OpenClContext> context_;
  const LaunchPlan& plan_;
  int64_t capacity_;
  int64_t vocab_size_;
  const std::atomic<bool>* cancelled_;
  std::vector<ClMemory> slots_, caches_;
  std::vector<BoundStep> body_, head_;
  std::vector<std::vector<int32_t>> kept_;  // by layer
  Trace trace_;
};

}  // namespace ark
