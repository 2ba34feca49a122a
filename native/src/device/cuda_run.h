// A plan on a CUDA device (device_run.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "device/cuda_graph.h"
#include "device/cuda_launch.h"
#include "device/cuda_memory.h"
#include "device/device_run.h"

namespace ark {

class CudaRun : public DeviceRun {
 public:
  CudaRun(const DeviceModel& model, int64_t capacity, const std::atomic<bool>* cancelled);
  ~CudaRun() override;

  void run_body(const int32_t* tokens, int64_t n, int64_t past, int64_t total) override;
  void run_head(int64_t first_row, int64_t rows, float* logits) override;
  std::vector<int32_t> kept_row(int32_t layer) const override;
  void set_trace(Trace trace) override { trace_ = std::move(trace); }
  const std::string& name() const override { return device_->name(); }

 private:
  struct BoundStep {
    const LaunchStep* step;
    std::vector<CudaLaunch> launches;
  };

  void load_modules(const DeviceModel& model);
  CudaMemory allocate(int64_t bytes, const std::string& what) const;
  cu::Function function_of(const LaunchStep& step, const Launch& launch) const;
  CudaLaunch bind(const LaunchStep& step, const Launch& launch, size_t rows_slot) const;
  std::vector<BoundStep> bind(const std::vector<LaunchStep>& steps) const;
  std::vector<CudaLaunch> bind_one_token(const std::vector<LaunchStep>& steps,
                                         size_t rows_slot) const;
  void run_steps(std::vector<BoundStep>* steps, const LaunchScalars& scalars);
  void run_graph(const LaunchScalars& scalars);
  void report(const LaunchStep& step, int64_t rows, double seconds);
  void read(void* target, size_t slot, size_t offset, size_t bytes, const std::string& what) const;
  void wait(const std::string& what) const;
  LaunchScalars scalars_of(int64_t tokens, int64_t past, int64_t total) const;

  const LaunchPlan& plan_;
  const int64_t capacity_;
  const int64_t vocab_size_;
  const std::atomic<bool>* cancelled_;
  std::shared_ptr<CudaDevice> device_;
  cu::Handle<cu::Stream, &cu::Api::StreamDestroy> stream_;
  std::vector<cu::Handle<cu::Module, &cu::Api::ModuleUnload>> modules_;
  std::shared_ptr<const CudaWeights> weights_;
  std::vector<CudaMemory> slots_, caches_;
  std::unique_ptr<CudaHostMemory> logits_;  // [output_rows, vocabulary]
  std::vector<BoundStep> body_, head_;
  std::unique_ptr<CudaGraph> graph_;
  bool logits_done_ = false;  // the graph ran the head too, for its token
  int64_t rows_ = 0;          // of the last body
  Trace trace_;
};

}  // namespace ark
