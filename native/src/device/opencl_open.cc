// Opening a device: its program, its self-test, and the memory of a session.
#include "arkinfer.h"
#include "device/device_cache.h"
#include "device/opencl_run.h"
#include "device/self_test.h"
#include "error.h"

namespace ark {
namespace {

constexpr const char* kCached = "opencl-verdict";

bool read_verdict(const std::string& key, Verdict* verdict) {
  std::string text;
  return read_cached(kCached, key, &text) && parse_verdict(text, verdict);
}

void require_right(const OpenClDevice& device, const Verdict& verdict) {
  if (verdict.wrong.empty()) return;
  fail(ARK_EXECUTOR_FAILED, device.name + " failed the self-test: " + verdict.wrong,
       "the CPU's results", "update the driver, or run on the CPU: --on cpu");
}

}  // namespace

std::string opencl_identity() { return choose_device().identity(); }

std::unique_ptr<DeviceRun> open_opencl(const DeviceModel& model, int64_t capacity,
                                       const std::atomic<bool>* cancelled) {
  const OpenClDevice device = choose_device();
  const std::string key = model.id + "\n" + ark_version() + "\n" + device.identity();
  Verdict verdict;
  const bool known = read_verdict(key, &verdict);
  if (known) require_right(device, verdict);
  auto context = std::make_shared<const OpenClContext>(device, model);
  if (!known) {
    int64_t most = self_test_capacity(*model.plan, model.context);
    OpenClRun run(context, model, most, cancelled);
    verdict = self_test(*model.plan, model.weights, most, &run);
    write_cached(kCached, key, verdict_text(verdict));
    require_right(device, verdict);
  }
  return std::make_unique<OpenClRun>(std::move(context), model, capacity, cancelled);
}

}  // namespace ark
