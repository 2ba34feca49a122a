// A small launches.json with every operator, and a device that computes on the CPU.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "device/step_images.h"
#include "fixture.h"
#include "thread_pool.h"

namespace ark::testing {

// For the tiny model's manifest, with "opencl" as its backend; the source is not one.
Files launch_files();

// Slots and caches in the host's memory; steps are computed as the self-test expects them.
class HostRunner : public StepRunner {
 public:
  HostRunner(const LaunchPlan& plan, const char* weights, int64_t capacity);

  void write(LaunchArgument::Kind kind, size_t index, const std::vector<char>& bytes) override;
  void read(LaunchArgument::Kind kind, size_t index, std::vector<char>* bytes) override;
  void run(const LaunchStep& step, const LaunchScalars& scalars) override;

  // Called behind each step, with its operands' memory as the device has it.
  std::function<void(const LaunchStep&, HostRunner*)> after;
  std::vector<char>& memory(LaunchArgument::Kind kind, size_t index) {
    return memory_.at({kind, index});
  }

 private:
  const LaunchPlan& plan_;
  const char* weights_;
  ThreadPool pool_{1};
  std::map<std::pair<LaunchArgument::Kind, size_t>, std::vector<char>> memory_;
};

}  // namespace ark::testing
