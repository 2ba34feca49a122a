// Opening a device: its program, its self-test, and the memory of a session.
#include "arkinfer.h"
#include "device/device_cache.h"
#include "device/opencl_run.h"
#include "device/self_test.h"
#include "error.h"

namespace ark {
namespace {

constexpr const char* kCached = "opencl-verdict";

Verdict judge(const DeviceModel& model, const std::shared_ptr<const OpenClContext>& context,
              const std::atomic<bool>* cancelled) {
  const std::string key = model.id + "\n" + ark_version() + "\n" + context->device().identity();
  Verdict verdict;
  std::string text;
  if (read_cached(kCached, key, &text) && parse_verdict(text, &verdict)) return verdict;
  int64_t capacity = self_test_capacity(*model.plan, model.context);
  OpenClRun run(context, model, capacity, cancelled);
  verdict = self_test(*model.plan, model.weights, capacity, &run);
  write_cached(kCached, key, verdict_text(verdict));
  return verdict;
}

}  // namespace

std::unique_ptr<DeviceRun> open_opencl(const DeviceModel& model, int64_t capacity,
                                       const std::atomic<bool>* cancelled) {
  auto context = std::make_shared<const OpenClContext>(model);
  Verdict verdict = judge(model, context, cancelled);
  if (!verdict.wrong.empty()) {
    fail(ARK_EXECUTOR_FAILED, context->device().name + " failed the self-test: " + verdict.wrong,
         "the CPU's results", "update the driver, or compile the model with --target cpu");
  }
  return std::make_unique<OpenClRun>(std::move(context), model, capacity, cancelled);
}

}  // namespace ark
