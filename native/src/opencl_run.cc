#include "opencl_run.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "error.h"

namespace ark {
std::unique_ptr<DeviceRun> open_opencl(const DeviceModel& model, int64_t capacity,
                                       const std::atomic<bool>* cancelled) {
  return std::make_unique<OpenClRun>(model, capacity, cancelled);
}

OpenClRun::OpenClRun(const DeviceModel& model, int64_t capacity, const std::atomic<bool>* cancelled)
    : plan_(*model.plan),
      capacity_(capacity),
      vocab_size_(model.vocab_size),
      cancelled_(cancelled),
      device_(choose_device()) {
  most_lanes_ = static_cast<size_t>(device_.number(cl::kDeviceMaxGroupSize));
  int32_t code = 0;
  context_ = ClHandle<cl::Context, &cl::Api::ReleaseContext>(
      cl::api().CreateContext(nullptr, 1, &device_.device, nullptr, nullptr, &code));
  cl::check(code, "opening " + device_.name);
  queue_ = ClHandle<cl::Queue, &cl::Api::ReleaseCommandQueue>(
      cl::api().CreateCommandQueue(context_.get(), device_.device, 0, &code));
  cl::check(code, "opening a queue of " + device_.name);
  build(model);
  LaunchScalars scalars;
  scalars.capacity = capacity;
  for (const LaunchSize& slot : plan_.slots) {
    slots_.push_back(allocate(slot.evaluate(scalars), "activations"));
  }
  for (const LaunchCache& cache : plan_.caches) {
    caches_.push_back(allocate(cache.bytes.evaluate(scalars), "the cache " + quote(cache.name)));
  }
  upload_weights(model);
  body_ = bind(plan_.body);
  head_ = bind(plan_.head);
}

void OpenClRun::build(const DeviceModel& model) {
  int32_t code = 0;
  program_ = ClHandle<cl::Program, &cl::Api::ReleaseProgram>(cl::api().CreateProgramWithSource(
      context_.get(), 1, &const_cast<const char*&>(model.source), &model.source_bytes, &code));
  cl::check(code, "reading kernels.cl");
  code =
      cl::api().BuildProgram(program_.get(), 1, &device_.device, "-cl-std=CL1.2", nullptr, nullptr);
  if (code == cl::kSuccess) return;
  size_t size = 0;
  cl::api().GetProgramBuildInfo(program_.get(), device_.device, cl::kBuildLog, 0, nullptr, &size);
  std::string log(size, '\0');
  cl::api().GetProgramBuildInfo(program_.get(), device_.device, cl::kBuildLog, size, &log[0],
                                nullptr);
  constexpr size_t kShown = 1500;
  fail(ARK_EXECUTOR_FAILED,
       "kernels.cl does not build for " + device_.name + " (" + cl::code_name(code) +
           "): " + quote(log.substr(0, kShown)),
       "", "update the driver, or compile the model with --target cpu");
}

OpenClRun::ClMemory OpenClRun::allocate(int64_t bytes, const std::string& what) {
  bytes = std::max<int64_t>(bytes, 4);
  int64_t most = device_.number(cl::kDeviceMaxAllocation);
  if (bytes > most) {
    fail(ARK_OUT_OF_MEMORY, std::to_string(bytes) + " bytes for " + what,
         "at most " + std::to_string(most) + " at once on " + device_.name,
         "load with a smaller context");
  }
  int32_t code = 0;
  ClMemory memory(cl::api().CreateBuffer(context_.get(), cl::kReadWrite, static_cast<size_t>(bytes),
                                         nullptr, &code));
  cl::check(code, std::to_string(bytes) + " bytes for " + what + " on " + device_.name);
  // Kernels read past what is written, and multiply it by zero: it must be finite.
  const std::vector<char> zeros(static_cast<size_t>(std::min<int64_t>(bytes, 1 << 20)));
  for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(zeros.size())) {
    auto part = std::min(zeros.size(), static_cast<size_t>(bytes - at));
    cl::check(cl::api().EnqueueWriteBuffer(queue_.get(), memory.get(), 1, static_cast<size_t>(at),
                                           part, zeros.data(), 0, nullptr, nullptr),
              "clearing " + what);
  }
  return memory;
}

void OpenClRun::upload_weights(const DeviceModel& model) {
  const bool unified = device_.number(cl::kDeviceUnifiedMemory) != 0;
  int64_t most = device_.number(cl::kDeviceMaxAllocation);
  // Where the device shares the host's memory, it reads the mapped file itself.
  uint64_t flags = cl::kReadOnly | (unified ? cl::kUseHostPointer : cl::kCopyHostPointer);
  for (const LaunchWeight& weight : plan_.weights) {
    if (weight.bytes > most) {
      fail(ARK_OUT_OF_MEMORY, std::to_string(weight.bytes) + " bytes for " + quote(weight.name),
           "at most " + std::to_string(most) + " at once on " + device_.name,
           "compile with fewer bits, or with --target cpu");
    }
    int32_t code = 0;
    weights_.emplace_back(
        cl::api().CreateBuffer(context_.get(), flags, static_cast<size_t>(weight.bytes),
                               const_cast<char*>(model.weights) + weight.offset, &code));
    cl::check(code, std::to_string(weight.bytes) + " bytes for " + quote(weight.name));
  }
}

cl::Memory OpenClRun::memory_of(const LaunchArgument& argument) const {
  if (argument.kind == LaunchArgument::Kind::weight) return weights_[argument.index].get();
  if (argument.kind == LaunchArgument::Kind::cache) return caches_[argument.index].get();
  return slots_[argument.index].get();
}

std::vector<OpenClRun::BoundStep> OpenClRun::bind(const std::vector<LaunchStep>& steps) {
  std::vector<BoundStep> bound;
  for (const LaunchStep& step : steps) {
    BoundStep entry{&step, {}};
    for (const Launch& launch : step.launches) {
      int32_t code = 0;
      BoundLaunch one{&launch, ClHandle<cl::Kernel, &cl::Api::ReleaseKernel>(cl::api().CreateKernel(
                                   program_.get(), launch.kernel.c_str(), &code))};
      cl::check(code, step.place + ": the kernel " + quote(launch.kernel));
      uint32_t count = 0;
      cl::check(cl::api().GetKernelInfo(one.kernel.get(), cl::kKernelArguments, sizeof(count),
                                        &count, nullptr),
                step.place);
      if (count != launch.arguments.size() || static_cast<size_t>(launch.lanes) > most_lanes_) {
        fail(ARK_INVALID_BUNDLE,
             step.place + ": " + std::to_string(launch.arguments.size()) + " arguments and " +
                 std::to_string(launch.lanes) + " lanes",
             std::to_string(count) + " arguments and at most " + std::to_string(most_lanes_) +
                 " lanes",
             "compile the bundle again");
      }
      for (uint32_t i = 0; i < count; i++) {
        if (launch.arguments[i].kind == LaunchArgument::Kind::scalar) continue;
        cl::Memory memory = memory_of(launch.arguments[i]);
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
  cl::check(cl::api().EnqueueNDRangeKernel(queue_.get(), bound.kernel.get(), 3, nullptr, sizes,
                                           lanes, 0, nullptr, nullptr),
            step.step->place + " on " + device_.name);
}

void OpenClRun::run_steps(const std::vector<BoundStep>& steps, LaunchScalars scalars) {
  scalars.capacity = capacity_;
  for (const BoundStep& step : steps) {
    if (cancelled_->load(std::memory_order_relaxed)) {
      fail(ARK_CANCELLED, "the append was cancelled", "", "");
    }
    auto start = std::chrono::steady_clock::now();
    for (const BoundLaunch& bound : step.launches) {
      if (scalars.tokens < bound.launch->least || scalars.tokens > bound.launch->most) continue;
      launch(step, bound, scalars);
    }
    if (step.step->keep_layer >= 0) keep(*step.step, scalars.tokens);
    if (trace_) {
      cl::check(cl::api().Finish(queue_.get()), step.step->place);
      std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
      report(*step.step, scalars.tokens, passed.count());
    }
  }
  cl::check(cl::api().Flush(queue_.get()), "starting on " + device_.name);
}

void OpenClRun::keep(const LaunchStep& step, int64_t tokens) {
  const LaunchOutput& output = step.output;
  auto layer = static_cast<size_t>(step.keep_layer);
  if (kept_.size() <= layer) kept_.resize(layer + 1);
  kept_[layer].resize(static_cast<size_t>(output.columns));
  // In order with the kernels; done when the logits are read.
  auto offset = static_cast<size_t>((tokens - 1) * output.stride + output.column) * 4;
  cl::check(cl::api().EnqueueReadBuffer(queue_.get(), slots_[output.slot].get(), 0, offset,
                                        static_cast<size_t>(output.columns) * 4,
                                        kept_[layer].data(), 0, nullptr, nullptr),
            step.place);
}

std::vector<int32_t> OpenClRun::kept_row(int32_t layer) const {
  cl::check(cl::api().Finish(queue_.get()), "waiting for " + device_.name);
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
  cl::check(cl::api().EnqueueReadBuffer(queue_.get(), slots_[output.slot].get(), 1, 0,
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
  cl::check(cl::api().EnqueueWriteBuffer(queue_.get(), slots_[plan_.token_ids].get(), 1, 0,
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
  cl::check(cl::api().EnqueueCopyBuffer(queue_.get(), slots_[plan_.head_input].get(),
                                        slots_[plan_.head_rows].get(),
                                        static_cast<size_t>(first_row) * row_bytes, 0,
                                        static_cast<size_t>(rows) * row_bytes, 0, nullptr, nullptr),
            "choosing rows");
  LaunchScalars scalars;
  scalars.tokens = rows;
  run_steps(head_, scalars);
  cl::check(cl::api().EnqueueReadBuffer(queue_.get(), slots_[plan_.logits].get(), 1, 0,
                                        static_cast<size_t>(rows * vocab_size_) * sizeof(float),
                                        logits, 0, nullptr, nullptr),
            "reading the logits from " + device_.name);
}

}  // namespace ark
