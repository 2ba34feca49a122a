// The self-test of a device, on a device that computes right, or wrong in one place.
#include "check.h"
#include "device/self_test.h"
#include "launch_files.h"

using namespace ark;
using namespace ark::testing;

namespace {

Verdict judge(const Model& model, std::function<void(const LaunchStep&, HostRunner*)> after) {
  const LaunchPlan& plan = *model.launches();
  int64_t capacity = self_test_capacity(plan, model.manifest().context);
  HostRunner runner(plan, model.weights(), capacity);
  runner.after = std::move(after);
  return self_test(plan, model.weights(), capacity, &runner);
}

}  // namespace

TEST(a_right_device_passes_its_self_test) {
  auto model = load(launch_files());
  const LaunchPlan& plan = *model->launches();
  Verdict verdict = judge(*model, {});
  CHECK(verdict.wrong.empty());
  CHECK(verdict.difference == 0);
  CHECK(verdict.kernels > static_cast<int64_t>(plan.body.size()));
}

TEST(a_device_that_is_wrong_in_one_step_is_found) {
  auto model = load(launch_files());
  const LaunchPlan& plan = *model->launches();
  for (const auto* steps : {&plan.body, &plan.head}) {
    for (const LaunchStep& broken : *steps) {
      for (const LaunchOperand& operand : broken.operands) {
        bool buffer = operand.kind == LaunchOperand::Kind::buffer;
        if (!buffer && operand.kind != LaunchOperand::Kind::cache) continue;
        Verdict verdict = judge(*model, [&](const LaunchStep& step, HostRunner* runner) {
          if (&step != &broken) return;
          auto kind = buffer ? LaunchArgument::Kind::slot : LaunchArgument::Kind::cache;
          std::vector<char>& memory = runner->memory(kind, operand.index);
          // The top byte of the first number: another sign and exponent, or another index.
          memory[3] = static_cast<char>(memory[3] ^ 0x41);
        });
        CHECK(verdict.wrong.find(broken.place + ": " + broken.launches[0].kernel + " ") == 0);
      }
    }
  }
}

TEST(a_self_test_has_room_to_choose_blocks) {
  auto model = load(launch_files());
  const LaunchPlan& plan = *model->launches();
  CHECK(self_test_capacity(plan, 200) == 256);
  CHECK(self_test_capacity(plan, 1 << 20) == 1024);
}

TEST(a_verdict_is_read_as_it_was_written) {
  Verdict verdict;
  verdict.wrong = "body[3]: 'x'\nand more";
  verdict.kernels = 12;
  verdict.difference = 0.25;
  Verdict read;
  CHECK(parse_verdict(verdict_text(verdict), &read));
  CHECK(read.wrong == verdict.wrong && read.kernels == 12);
  CHECK(read.difference == 0.25);
  verdict.wrong.clear();
  CHECK(parse_verdict(verdict_text(verdict), &read) && read.wrong.empty());
  for (const char* text : {"", "1", "1 2", "1 x\n", "1 nan\n", "1 2 3\n"}) {
    CHECK(!parse_verdict(text, &read));
  }
}
