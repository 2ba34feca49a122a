#include "device/self_test.h"

#include <algorithm>
#include <cmath>
#include <locale>
#include <set>
#include <sstream>

#include "device/step_expected.h"

namespace ark {
namespace {

constexpr int64_t kBlock = 64;
constexpr int64_t kLeastCapacity = 1024;
// Sums of thousands of float32 products in another order; a kernel that is wrong is off by parts.
constexpr double kTolerance = 3e-4;
// fp16 caches may round what lies between two halves the other way; fp16 products round inputs.
constexpr double kHalfTolerance = 2e-3;

class SelfTest {
 public:
  SelfTest(const LaunchPlan& plan, const char* weights, int64_t capacity, StepRunner* runner)
      : plan_(plan),
        weights_(weights),
        capacity_(capacity),
        runner_(runner),
        pool_(ThreadPool::available_cores()) {}

  Verdict run() {
    const int64_t many = std::min<int64_t>(plan_.chunk, 37);
    for (const LaunchStep& step : plan_.body) {
      test(step, many, 0);
      test(step, many, capacity_ - many);
      test(step, std::min<int64_t>(plan_.chunk, 5), capacity_ / 2);
      test(step, 1, capacity_ - 1);
    }
    for (const LaunchStep& step : plan_.head) {
      test(step, plan_.output_rows, 0);
      test(step, 1, 0);
    }
    return verdict_;
  }

 private:
  // The kernels that a step launches for a number of tokens.
  static std::string kernels(const LaunchStep& step, int64_t tokens) {
    std::string names;
    for (const Launch& launch : step.launches) {
      if (tokens < launch.least || tokens > launch.most) continue;
      names += (names.empty() ? "" : ", ") + launch.kernel;
    }
    return names;
  }

  void test(const LaunchStep& step, int64_t tokens, int64_t past) {
    const std::string names = kernels(step, tokens);
    if (!verdict_.wrong.empty() || past < 0) return;
    if (!tested_.emplace(names, tokens, past).second) return;
    LaunchScalars scalars;
    scalars.tokens = tokens;
    scalars.past = past;
    scalars.total = past + tokens;
    scalars.capacity = capacity_;
    StepImages expected(plan_, step, scalars, weights_, &random_);
    expected.upload(runner_);
    runner_->run(step, scalars);
    StepImages found = expected.download(runner_);
    compute_expected(&expected, found, &pool_);
    double difference = found.difference(expected);
    double most = plan_.half_caches || plan_.half_products() ? kHalfTolerance : kTolerance;
    verdict_.kernels = static_cast<int64_t>(tested_.size());
    verdict_.difference = std::max(verdict_.difference, difference);
    if (!(difference <= most)) {
      std::ostringstream text;
      text.imbue(std::locale::classic());
      text << step.place << ": " << names << " for " << tokens << " tokens behind " << past
           << " differs from the CPU by " << std::min(difference, 1e6) << " of the largest number";
      verdict_.wrong = text.str();
    }
  }

  const LaunchPlan& plan_;
  const char* weights_;
  int64_t capacity_;
  StepRunner* runner_;
  ThreadPool pool_;
  std::mt19937 random_{1};
  std::set<std::tuple<std::string, int64_t, int64_t>> tested_;
  Verdict verdict_;
};

}  // namespace

int64_t self_test_capacity(const LaunchPlan& plan, int64_t context) {
  double wanted = kLeastCapacity;
  for (const LaunchStep& step : plan.body) {
    if (step.kernel != "select_blocks") continue;
    double blocks = step.attribute("topk", 0) + step.attribute("local_blocks", 0) +
                    step.attribute("init_blocks", 0);
    // Twice as many blocks as are chosen, behind the length up to which all are.
    wanted = std::max(wanted, std::max(step.attribute("dense_len", 0), 0.0) +
                                  2 * blocks * step.attribute("block_size", kBlock));
  }
  auto most = static_cast<double>((context + kBlock - 1) / kBlock * kBlock);
  wanted = std::min(wanted, most);
  return (static_cast<int64_t>(wanted) + kBlock - 1) / kBlock * kBlock;
}

Verdict self_test(const LaunchPlan& plan, const char* weights, int64_t capacity,
                  StepRunner* runner) {
  return SelfTest(plan, weights, capacity, runner).run();
}

std::string verdict_text(const Verdict& verdict) {
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text.precision(6);
  text << verdict.kernels << " " << std::min(verdict.difference, 1e6) << "\n" << verdict.wrong;
  return text.str();
}

bool parse_verdict(const std::string& text, Verdict* verdict) {
  std::istringstream stream(text);
  stream.imbue(std::locale::classic());
  Verdict read;
  if (!(stream >> read.kernels >> read.difference)) return false;
  if (stream.get() != '\n' || !std::isfinite(read.difference)) return false;
  std::getline(stream, read.wrong, '\0');
  *verdict = read;
  return true;
}

}  // namespace ark
