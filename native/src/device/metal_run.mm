// A plan on a Metal device (device_run.h). Memory is shared with the processor, and a run of
// steps is one command buffer.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "error.h"
#include "device/metal_context.h"

namespace ark {
namespace {

constexpr size_t kMostBuffers = 31;  // that a kernel can have, its scalars included

class MetalRun : public DeviceRun {
 public:
  MetalRun(const DeviceModel& model, int64_t capacity, const std::atomic<bool>* cancelled)
      : context_(model),
        plan_(*model.plan),
        capacity_(capacity),
        vocab_size_(model.vocab_size),
        cancelled_(cancelled) {
    LaunchScalars scalars;
    scalars.capacity = capacity;
    for (const LaunchSize& slot : plan_.slots) {
      slots_.push_back(context_.allocate(slot.evaluate(scalars), "activations"));
    }
    for (const LaunchCache& cache : plan_.caches) {
      caches_.push_back(
          context_.allocate(cache.bytes.evaluate(scalars), "the cache " + quote(cache.name)));
    }
    body_ = bind(plan_.body);
    head_ = bind(plan_.head);
  }

  // Weights are not the command buffers' own.
  ~MetalRun() override {
    for (id<MTLCommandBuffer> buffer : committed_) [buffer waitUntilCompleted];
  }

  void run_body(const int32_t* tokens, int64_t n, int64_t past, int64_t total) override {
    @autoreleasepool {
      auto bytes = static_cast<NSUInteger>(n) * sizeof(int32_t);
      // Earlier steps may still read the slot: the copy waits its turn behind them.
      id<MTLBuffer> staged = [context_.device() newBufferWithBytes:tokens
                                                            length:bytes
                                                           options:MTLResourceStorageModeShared];
      if (!staged) fail(ARK_OUT_OF_MEMORY, "no memory for the tokens of a step", "", "");
      begin();
      copy(staged, 0, slots_[plan_.token_ids], 0, bytes);
      LaunchScalars scalars;
      scalars.tokens = n;
      scalars.past = past;
      scalars.total = total;
      run_or_abandon(body_, scalars);
    }
  }

  void run_head(int64_t first_row, int64_t rows, float* logits) override {
    @autoreleasepool {
      auto row_bytes = static_cast<NSUInteger>(plan_.head_columns) * sizeof(float);
      begin();
      copy(slots_[plan_.head_input], static_cast<NSUInteger>(first_row) * row_bytes,
           slots_[plan_.head_rows], 0, static_cast<NSUInteger>(rows) * row_bytes);
      LaunchScalars scalars;
      scalars.tokens = rows;
      run_or_abandon(head_, scalars);
      wait("the step");
      std::memcpy(logits, slots_[plan_.logits].contents,
                  static_cast<size_t>(rows * vocab_size_) * sizeof(float));
    }
  }

  std::vector<int32_t> kept_row(int32_t layer) const override {
    auto index = static_cast<size_t>(layer);
    if (index >= kept_.size() || !kept_[index]) return {};
    [last_ waitUntilCompleted];
    const auto* row = static_cast<const int32_t*>(kept_[index].contents);
    return std::vector<int32_t>(row, row + kept_[index].length / sizeof(int32_t));
  }

  void set_trace(Trace trace) override { trace_ = std::move(trace); }
  const std::string& name() const override { return context_.name(); }

 private:
  struct BoundLaunch {
    const Launch* launch;
    id<MTLComputePipelineState> kernel;
  };
  struct BoundStep {
    const LaunchStep* step;
    std::vector<BoundLaunch> launches;
  };

  std::vector<BoundStep> bind(const std::vector<LaunchStep>& steps) {
    std::vector<BoundStep> bound;
    for (const LaunchStep& step : steps) {
      BoundStep entry{&step, {}};
      for (const Launch& launch : step.launches) {
        if (launch.arguments.size() >= kMostBuffers) {
          fail(ARK_INVALID_BUNDLE,
               step.place + ": " + std::to_string(launch.arguments.size()) + " arguments",
               "at most " + std::to_string(kMostBuffers - 1), "compile the bundle again");
        }
        entry.launches.push_back({&launch, context_.kernel(launch, step.place)});
      }
      bound.push_back(std::move(entry));
    }
    return bound;
  }

  void begin() {
    last_ = [context_.queue() commandBuffer];
    if (!last_) fail(ARK_EXECUTOR_FAILED, "no command buffer on " + name(), "", "");
  }

  // An encoder for launches; steps share one, and copies end it.
  id<MTLComputeCommandEncoder> compute() {
    if (!compute_) compute_ = [last_ computeCommandEncoder];
    return compute_;
  }

  void end_compute() {
    [compute_ endEncoding];
    compute_ = nil;
  }

  void end() {
    end_compute();
    [last_ commit];
    committed_.push_back(last_);
  }

  // Leaves out what is not committed: an encoder must be ended before it goes.
  void abandon() {
    end_compute();
    last_ = nil;
  }

  void copy(id<MTLBuffer> from, NSUInteger offset, id<MTLBuffer> to, NSUInteger at,
            NSUInteger bytes) {
    end_compute();
    id<MTLBlitCommandEncoder> encoder = [last_ blitCommandEncoder];
    [encoder copyFromBuffer:from sourceOffset:offset toBuffer:to destinationOffset:at size:bytes];
    [encoder endEncoding];
  }

  // Waits for everything that was committed, and raises what failed of it.
  void wait(const std::string& what) {
    std::vector<id<MTLCommandBuffer>> ran = std::move(committed_);
    committed_.clear();
    for (id<MTLCommandBuffer> buffer : ran) {
      [buffer waitUntilCompleted];
      if (buffer.status != MTLCommandBufferStatusError) continue;
      bool memory = buffer.error.code == MTLCommandBufferErrorOutOfMemory;
      fail(memory ? ARK_OUT_OF_MEMORY : ARK_EXECUTOR_FAILED,
           what + " failed on " + name() + ": " + metal_reason(buffer.error), "",
           memory ? "load with a smaller context" : "compile the model with --target cpu");
    }
  }

  void run_or_abandon(const std::vector<BoundStep>& steps, const LaunchScalars& scalars) {
    try {
      run_steps(steps, scalars);
    } catch (...) {
      abandon();
      throw;
    }
    end();
  }

  void run_steps(const std::vector<BoundStep>& steps, LaunchScalars scalars) {
    scalars.capacity = capacity_;
    for (const BoundStep& step : steps) {
      if (cancelled_->load(std::memory_order_relaxed)) {
        fail(ARK_CANCELLED, "the append was cancelled", "", "");
      }
      for (const BoundLaunch& bound : step.launches) {
        if (scalars.tokens < bound.launch->least || scalars.tokens > bound.launch->most) continue;
        launch(bound, scalars);
      }
      if (step.step->keep_layer >= 0) keep(*step.step, scalars.tokens);
      if (trace_) report(*step.step, scalars.tokens);
    }
  }

  void launch(const BoundLaunch& bound, const LaunchScalars& scalars) {
    const Launch& launch = *bound.launch;
    NSUInteger groups[3];
    for (int axis = 0; axis < 3; axis++) {
      groups[axis] = static_cast<NSUInteger>(launch.groups[axis].evaluate(scalars));
      if (groups[axis] == 0) return;
    }
    id<MTLComputeCommandEncoder> encoder = compute();
    [encoder setComputePipelineState:bound.kernel];
    // Scalars lie in one structure behind the buffers, eight bytes for each.
    int32_t values[2 * kMostBuffers] = {};
    NSUInteger buffers = 0, count = 0;
    for (const LaunchArgument& argument : launch.arguments) {
      if (argument.kind == LaunchArgument::Kind::scalar) {
        values[2 * count++] = static_cast<int32_t>(scalars.*argument.scalar);
      } else if (argument.kind == LaunchArgument::Kind::weight) {
        const MetalContext::Weight& weight = context_.weight(argument.index);
        [encoder setBuffer:weight.buffer offset:weight.offset atIndex:buffers++];
      } else {
        bool cache = argument.kind == LaunchArgument::Kind::cache;
        [encoder setBuffer:(cache ? caches_ : slots_)[argument.index] offset:0 atIndex:buffers++];
      }
    }
    [encoder setBytes:values length:count * 2 * sizeof(int32_t) atIndex:buffers];
    [encoder dispatchThreadgroups:MTLSizeMake(groups[0], groups[1], groups[2])
            threadsPerThreadgroup:MTLSizeMake(static_cast<NSUInteger>(launch.lanes), 1, 1)];
  }

  void keep(const LaunchStep& step, int64_t tokens) {
    const LaunchOutput& output = step.output;
    auto layer = static_cast<size_t>(step.keep_layer);
    auto bytes = static_cast<NSUInteger>(output.columns) * sizeof(int32_t);
    if (kept_.size() <= layer) kept_.resize(layer + 1);
    if (!kept_[layer]) {
      kept_[layer] = context_.allocate(static_cast<int64_t>(bytes), "blocks of a layer");
    }
    auto offset = static_cast<NSUInteger>((tokens - 1) * output.stride + output.column);
    copy(slots_[output.slot], offset * sizeof(int32_t), kept_[layer], 0, bytes);
  }

  // Runs what is encoded so far, a step, and shows what it left.
  void report(const LaunchStep& step, int64_t rows) {
    auto start = std::chrono::steady_clock::now();
    end();
    wait(step.place);
    std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    begin();
    const LaunchOutput& output = step.output;
    if (!output.present || !output.is_float) {
      trace_(step, passed.count(), nullptr, 0, 0);
      return;
    }
    const auto* held = static_cast<const float*>(slots_[output.slot].contents);
    std::vector<float> values(static_cast<size_t>(rows * output.columns));
    for (int64_t row = 0; row < rows; row++) {
      std::copy_n(held + row * output.stride + output.column, output.columns,
                  values.begin() + row * output.columns);
    }
    trace_(step, passed.count(), values.data(), rows, output.columns);
  }

  MetalContext context_;
  const LaunchPlan& plan_;
  int64_t capacity_;
  int64_t vocab_size_;
  const std::atomic<bool>* cancelled_;
  std::vector<id<MTLBuffer>> slots_, caches_, kept_;  // the last by layer
  std::vector<BoundStep> body_, head_;
  id<MTLCommandBuffer> last_;                    // being encoded, or the last that was
  std::vector<id<MTLCommandBuffer>> committed_;  // since the last wait
  id<MTLComputeCommandEncoder> compute_;
  Trace trace_;
};

}  // namespace

std::unique_ptr<DeviceRun> open_metal(const DeviceModel& model, int64_t capacity,
                                      const std::atomic<bool>* cancelled) {
  return std::make_unique<MetalRun>(model, capacity, cancelled);
}

}  // namespace ark
