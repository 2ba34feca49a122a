#include "device/cuda_run.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "error.h"

namespace ark {
namespace {

// What a block may have without asking for more.
constexpr int kPlainSharedBytes = 48 << 10;

void check_cancelled(const std::atomic<bool>* cancelled) {
  if (cancelled->load(std::memory_order_relaxed)) {
    fail(ARK_CANCELLED, "the append was cancelled", "", "");
  }
}

}  // namespace

std::unique_ptr<DeviceRun> open_cuda(const DeviceModel& model, int64_t capacity,
                                     const std::atomic<bool>* cancelled) {
  return std::make_unique<CudaRun>(model, capacity, cancelled);
}

CudaRun::CudaRun(const DeviceModel& model, int64_t capacity, const std::atomic<bool>* cancelled)
    : plan_(*model.plan),
      capacity_(capacity),
      vocab_size_(model.vocab_size),
      cancelled_(cancelled),
      device_(CudaDevice::open()) {
  check_architecture(plan_.code, *device_);
  device_->make_current();
  cu::check(cu::api().StreamCreate(stream_.out(), cu::kStreamNonBlocking),
            "opening a stream of " + name());
  load_modules(model);
  LaunchScalars scalars = scalars_of(0, 0, 0);
  weights_ = CudaWeights::of(model.weights, model.weights_bytes, device_);
  for (const LaunchSize& slot : plan_.slots) {
    slots_.push_back(allocate(slot.evaluate(scalars), "activations"));
  }
  for (const LaunchCache& cache : plan_.caches) {
    caches_.push_back(allocate(cache.bytes.evaluate(scalars), "the cache " + quote(cache.name)));
  }
  logits_ = std::make_unique<CudaHostMemory>(plan_.output_rows * vocab_size_ * 4);
  body_ = bind(plan_.body);
  head_ = bind(plan_.head);
  wait("preparing " + name());
}

CudaRun::~CudaRun() {
  // Kernels may still run after an error; what they use is freed here.
  if (device_->use() == cu::kSuccess) cu::api().StreamSynchronize(stream_.get());
}

void CudaRun::load_modules(const DeviceModel& model) {
  for (const LaunchModule& module : plan_.code.modules) {
    cu::Handle<cu::Module, &cu::Api::ModuleUnload> loaded;
    int code = cu::api().ModuleLoadData(loaded.out(), model.source + module.offset);
    if (code != cu::kSuccess && code != cu::kOutOfMemory &&
        cu::driver_version() < plan_.code.toolkit) {
      fail(ARK_EXECUTOR_FAILED,
           "loading the kernels of " + quote(module.name) + ": " + cu::code_name(code) +
               ", on a driver of " + cu::version_text(cu::driver_version()),
           cu::version_text(plan_.code.toolkit) + ", which they were compiled with, or newer",
           "update the driver, or compile the bundle with an older nvcc");
    }
    cu::check(code, "loading the kernels of " + quote(module.name) + " on " + name());
    modules_.push_back(std::move(loaded));
  }
}

CudaMemory CudaRun::allocate(int64_t bytes, const std::string& what) const {
  CudaMemory memory(bytes, what + " on " + name());
  // Kernels read past what is written, and multiply it by zero: it must be finite.
  cu::check(cu::api().MemsetD8Async(memory.address(), 0, static_cast<size_t>(bytes), stream_.get()),
            "clearing " + what);
  return memory;
}

cu::Function CudaRun::function_of(const LaunchStep& step, const Launch& launch) const {
  cu::Function function = nullptr;
  cu::check(
      cu::api().ModuleGetFunction(&function, modules_[launch.module].get(), launch.kernel.c_str()),
      step.place + ": the kernel " + quote(launch.kernel));
  int fixed = 0;
  cu::check(cu::api().FuncGetAttribute(&fixed, cu::kFunctionSharedBytes, function), step.place);
  const int64_t shared = launch.dynamic_bytes + fixed;
  const int64_t most = device_->attribute(cu::kMaxSharedOptIn);
  const int64_t lanes = device_->attribute(cu::kMaxThreadsPerBlock);
  if (shared > most || launch.lanes > lanes) {
    fail(ARK_INVALID_BUNDLE,
         step.place + ": " + std::to_string(launch.lanes) + " threads with " +
             std::to_string(shared) + " bytes of shared memory",
         "at most " + std::to_string(lanes) + " with " + std::to_string(most) + " on " + name(),
         "compile the bundle for this device");
  }
  if (shared > kPlainSharedBytes) {
    cu::check(cu::api().FuncSetAttribute(function, cu::kFunctionMaxDynamicShared,
                                         static_cast<int>(launch.dynamic_bytes)),
              step.place);
  }
  return function;
}

CudaLaunch CudaRun::bind(const LaunchStep& step, const Launch& launch, size_t rows_slot) const {
  std::vector<cu::Address> addresses;
  for (const LaunchArgument& argument : launch.arguments) {
    cu::Address address = 0;
    if (argument.kind == LaunchArgument::Kind::weight) {
      auto offset = static_cast<cu::Address>(plan_.weights[argument.index].offset);
      address = weights_->address() + offset;
    } else if (argument.kind == LaunchArgument::Kind::cache) {
      address = caches_[argument.index].address();
    } else if (argument.kind == LaunchArgument::Kind::slot) {
      address = slots_[argument.index == plan_.head_rows ? rows_slot : argument.index].address();
    }
    addresses.push_back(address);
  }
  return CudaLaunch(step, launch, function_of(step, launch), addresses);
}

std::vector<CudaRun::BoundStep> CudaRun::bind(const std::vector<LaunchStep>& steps) const {
  std::vector<BoundStep> bound;
  for (const LaunchStep& step : steps) {
    bound.push_back({&step, {}});
    for (const Launch& launch : step.launches) {
      bound.back().launches.push_back(bind(step, launch, plan_.head_rows));
    }
  }
  return bound;
}

std::vector<CudaLaunch> CudaRun::bind_one_token(const std::vector<LaunchStep>& steps,
                                                size_t rows_slot) const {
  std::vector<CudaLaunch> bound;
  for (const LaunchStep& step : steps) {
    for (const Launch& launch : step.launches) {
      if (launch.least <= 1 && launch.most >= 1) bound.push_back(bind(step, launch, rows_slot));
    }
  }
  return bound;
}

LaunchScalars CudaRun::scalars_of(int64_t tokens, int64_t past, int64_t total) const {
  LaunchScalars scalars;
  scalars.tokens = tokens;
  scalars.past = past;
  scalars.total = total;
  scalars.capacity = capacity_;
  return scalars;
}

void CudaRun::wait(const std::string& what) const {
  cu::check(cu::api().StreamSynchronize(stream_.get()), what);
}

void CudaRun::run_steps(std::vector<BoundStep>* steps, const LaunchScalars& scalars) {
  for (BoundStep& bound : *steps) {
    check_cancelled(cancelled_);
    auto start = std::chrono::steady_clock::now();
    for (CudaLaunch& launch : bound.launches) {
      if (!launch.used(scalars.tokens)) continue;
      launch.set(scalars);
      launch.run(stream_.get());
    }
    if (!trace_) continue;
    wait(bound.step->place + " on " + name());
    std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    report(*bound.step, scalars.tokens, passed.count());
  }
}

void CudaRun::run_graph(const LaunchScalars& scalars) {
  check_cancelled(cancelled_);
  if (!graph_) {
    // The head reads the only row where the body left it.
    graph_ = std::make_unique<CudaGraph>(bind_one_token(plan_.body, plan_.head_rows),
                                         bind_one_token(plan_.head, plan_.head_input), scalars);
  }
  graph_->set(scalars);
  graph_->run(stream_.get());
  graph_->set(scalars_of(1, scalars.past + 1, scalars.total + 1));
}

void CudaRun::report(const LaunchStep& step, int64_t rows, double seconds) {
  const LaunchOutput& output = step.output;
  if (!output.present || !output.is_float) {
    trace_(step, seconds, nullptr, 0, 0);
    return;
  }
  std::vector<float> values(static_cast<size_t>(rows * output.stride));
  read(values.data(), output.slot, 0, values.size() * sizeof(float), step.place);
  for (int64_t row = 0; row < rows; row++) {
    std::copy_n(values.begin() + row * output.stride + output.column, output.columns,
                values.begin() + row * output.columns);
  }
  trace_(step, seconds, values.data(), rows, output.columns);
}

void CudaRun::read(void* target, size_t slot, size_t offset, size_t bytes,
                   const std::string& what) const {
  cu::check(
      cu::api().MemcpyDtoHAsync(target, slots_[slot].address() + offset, bytes, stream_.get()),
      what);
  wait(what);
}

std::vector<int32_t> CudaRun::kept_row(int32_t layer) const {
  device_->make_current();
  std::vector<int32_t> row;
  for (const LaunchStep& step : plan_.body) {
    if (step.keep_layer != layer || rows_ == 0) continue;
    row.resize(static_cast<size_t>(step.output.columns));
    auto offset = static_cast<size_t>((rows_ - 1) * step.output.stride + step.output.column) * 4;
    read(row.data(), step.output.slot, offset, row.size() * 4, step.place);
  }
  return row;
}

void CudaRun::run_body(const int32_t* tokens, int64_t n, int64_t past, int64_t total) {
  device_->make_current();
  cu::check(cu::api().MemcpyHtoDAsync(slots_[plan_.token_ids].address(), tokens,
                                      static_cast<size_t>(n) * sizeof(int32_t), stream_.get()),
            "writing the tokens");
  logits_done_ = false;
  rows_ = n;
  LaunchScalars scalars = scalars_of(n, past, total);
  if (n == 1 && !trace_) {
    run_graph(scalars);
    logits_done_ = true;
  } else {
    run_steps(&body_, scalars);
  }
}

void CudaRun::run_head(int64_t first_row, int64_t rows, float* logits) {
  device_->make_current();
  if (!logits_done_) {
    auto row_bytes = static_cast<size_t>(plan_.head_columns) * sizeof(float);
    cu::Address from = slots_[plan_.head_input].address();
    cu::check(cu::api().MemcpyDtoDAsync(slots_[plan_.head_rows].address(),
                                        from + static_cast<size_t>(first_row) * row_bytes,
                                        static_cast<size_t>(rows) * row_bytes, stream_.get()),
              "choosing rows");
    run_steps(&head_, scalars_of(rows, 0, 0));
  }
  auto bytes = static_cast<size_t>(rows * vocab_size_) * sizeof(float);
  const std::string what = "computing " + std::to_string(rows_) + " tokens on " + name();
  read(logits_->data(), plan_.logits, 0, bytes, what);
  std::copy_n(static_cast<const float*>(logits_->data()), rows * vocab_size_, logits);
}

}  // namespace ark
