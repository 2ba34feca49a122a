#include "device/opencl_run.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "error.h"

namespace ark {
OpenClRun::OpenClRun(std::shared_ptr<const OpenClContext> context, const DeviceModel& model,
                     int64_t capacity, const std::atomic<bool>* cancelled)
    : context_(std::move(context)),
      plan_(*model.plan),
      capacity_(capacity),
      vocab_size_(model.vocab_size),
      cancelled_(cancelled) {
  LaunchScalars scalars;
  scalars.capacity = capacity;
  for (const LaunchSize& slot : plan_.slots) {
    slots_.push_back(context_->allocate(slot.evaluate(scalars), "activations"));
  }
  for (const LaunchCache& cache : plan_.caches) {
    caches_.push_back(
        context_->allocate(cache.bytes.evaluate(scalars), "the cache " + quote(cache.name)));
  }
  body_ = bind(plan_.body);
  head_ = bind(plan_.head);
}

cl::Memory OpenClRun::memory_of(LaunchArgument::Kind kind, size_t index) const {
  if (kind == LaunchArgument::Kind::weight) return context_->weight(index);
  return kind == LaunchArgument::Kind::cache ? caches_[index].get() : slots_[index].get();
}

std::vector<OpenClRun::BoundStep> OpenClRun::bind(const std::vector<LaunchStep>& steps) {
  std::vector<BoundStep> bound;
  for (const LaunchStep& step : steps) {
    BoundStep entry{&step, {}};
    for (const Launch& launch : step.launches) {
      BoundLaunch one{&launch, context_->kernel(launch, step.place)};
      for (uint32_t i = 0; i < launch.arguments.size(); i++) {
        const LaunchArgument& argument = launch.arguments[i];
        if (argument.kind == LaunchArgument::Kind::scalar) continue;
        cl::Memory memory = argument.image ? context_->weight_image(argument.index)
                                           : memory_of(argument.kind, argument.index);
        cl::check(cl::api().SetKernelArg(one.kernel.get(), i, sizeof(memory), &memory), step.place);
      }
      entry.launches.push_back(std::move(one));
    }
    bound.push_back(std::move(entry));
  }
  return bound;
}

void OpenClRun::launch(const BoundStep& step, const BoundLaunch& bound,
                       const LaunchScalars& scalars) {
  const Launch& launch = *bound.launch;
  for (uint32_t i = 0; i < launch.arguments.size(); i++) {
    if (launch.arguments[i].kind != LaunchArgument::Kind::scalar) continue;
    auto value = static_cast<int32_t>(scalars.*launch.arguments[i].scalar);
    cl::check(cl::api().SetKernelArg(bound.kernel.get(), i, sizeof(value), &value),
              step.step->place);
  }
  size_t sizes[3];
  for (int axis = 0; axis < 3; axis++) {
    sizes[axis] = static_cast<size_t>(launch.groups[axis].evaluate(scalars));
    if (sizes[axis] == 0) return;
  }
  const size_t lanes[3] = {static_cast<size_t>(launch.lanes), 1, 1};
  sizes[0] *= lanes[0];
  cl::check(cl::api().EnqueueNDRangeKernel(context_->queue(), bound.kernel.get(), 3, nullptr, sizes,
                                           lanes, 0, nullptr, nullptr),
            step.step->place + " on " + name());
}

void OpenClRun::run_launches(const BoundStep& step, const LaunchScalars& scalars) {
  for (const BoundLaunch& bound : step.launches) {
    if (scalars.tokens < bound.launch->least || scalars.tokens > bound.launch->most) continue;
    launch(step, bound, scalars);
  }
}

void OpenClRun::write(LaunchArgument::Kind kind, size_t index, const std::vector<char>& bytes) {
  cl::check(cl::api().EnqueueWriteBuffer(context_->queue(), memory_of(kind, index), 1, 0,
                                         bytes.size(), bytes.data(), 0, nullptr, nullptr),
            "writing to " + name());
}

void OpenClRun::read(LaunchArgument::Kind kind, size_t index, std::vector<char>* bytes) {
  cl::check(cl::api().EnqueueReadBuffer(context_->queue(), memory_of(kind, index), 1, 0,
                                        bytes->size(), bytes->data(), 0, nullptr, nullptr),
            "reading from " + name());
}

void OpenClRun::run(const LaunchStep& step, const LaunchScalars& scalars) {
  for (const std::vector<BoundStep>* steps : {&body_, &head_}) {
    for (const BoundStep& bound : *steps) {
      if (bound.step != &step) continue;
      run_launches(bound, scalars);
      cl::check(cl::api().Finish(context_->queue()), step.place + " on " + name());
      return;
    }
  }
}

void OpenClRun::run_steps(const std::vector<BoundStep>& steps, LaunchScalars scalars) {
  scalars.capacity = capacity_;
  for (const BoundStep& step : steps) {
    if (cancelled_->load(std::memory_order_relaxed)) {
      fail(ARK_CANCELLED, "the append was cancelled", "", "");
    }
    auto start = std::chrono::steady_clock::now();
    run_launches(step, scalars);
    if (step.step->keep_layer >= 0) keep(*step.step, scalars.tokens);
    if (trace_) {
      cl::check(cl::api().Finish(context_->queue()), step.step->place);
      std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
      report(*step.step, scalars.tokens, passed.count());
    }
  }
  cl::check(cl::api().Flush(context_->queue()), "starting on " + name());
}

void OpenClRun::keep(const LaunchStep& step, int64_t tokens) {
  const LaunchOutput& output = step.output;
  auto layer = static_cast<size_t>(step.keep_layer);
  if (kept_.size() <= layer) kept_.resize(layer + 1);
  kept_[layer].resize(static_cast<size_t>(output.columns));
  // In order with the kernels; done when the logits are read.
  auto offset = static_cast<size_t>((tokens - 1) * output.stride + output.column) * 4;
  cl::check(cl::api().EnqueueReadBuffer(context_->queue(), slots_[output.slot].get(), 0, offset,
                                        static_cast<size_t>(output.columns) * 4,
                                        kept_[layer].data(), 0, nullptr, nullptr),
            step.place);
}

std::vector<int32_t> OpenClRun::kept_row(int32_t layer) const {
  cl::check(cl::api().Finish(context_->queue()), "waiting for " + name());
  auto index = static_cast<size_t>(layer);
  return index < kept_.size() ? kept_[index] : std::vector<int32_t>();
}

void OpenClRun::report(const LaunchStep& step, int64_t rows, double seconds) {
  const LaunchOutput& output = step.output;
  if (!output.present || !output.is_float) {
    trace_(step, seconds, nullptr, 0, 0);
    return;
  }
  std::vector<float> values(static_cast<size_t>(rows * output.stride));
  cl::check(cl::api().EnqueueReadBuffer(context_->queue(), slots_[output.slot].get(), 1, 0,
                                        values.size() * sizeof(float), values.data(), 0, nullptr,
                                        nullptr),
            step.place);
  for (int64_t row = 0; row < rows; row++) {
    std::copy_n(values.begin() + row * output.stride + output.column, output.columns,
                values.begin() + row * output.columns);
  }
  trace_(step, seconds, values.data(), rows, output.columns);
}

void OpenClRun::run_body(const int32_t* tokens, int64_t n, int64_t past, int64_t total) {
  cl::check(cl::api().EnqueueWriteBuffer(context_->queue(), slots_[plan_.token_ids].get(), 1, 0,
                                         static_cast<size_t>(n) * sizeof(int32_t), tokens, 0,
                                         nullptr, nullptr),
            "writing the tokens");
  LaunchScalars scalars;
  scalars.tokens = n;
  scalars.past = past;
  scalars.total = total;
  run_steps(body_, scalars);
}

void OpenClRun::run_head(int64_t first_row, int64_t rows, float* logits) {
  auto row_bytes = static_cast<size_t>(plan_.head_columns) * sizeof(float);
  cl::check(cl::api().EnqueueCopyBuffer(context_->queue(), slots_[plan_.head_input].get(),
                                        slots_[plan_.head_rows].get(),
                                        static_cast<size_t>(first_row) * row_bytes, 0,
                                        static_cast<size_t>(rows) * row_bytes, 0, nullptr, nullptr),
            "choosing rows");
  LaunchScalars scalars;
  scalars.tokens = rows;
  run_steps(head_, scalars);
  cl::check(cl::api().EnqueueReadBuffer(context_->queue(), slots_[plan_.logits].get(), 1, 0,
                                        static_cast<size_t>(rows * vocab_size_) * sizeof(float),
                                        logits, 0, nullptr, nullptr),
            "reading the logits from " + name());
}

}  // namespace ark
