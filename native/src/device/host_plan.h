// plan.cpu.json (docs/bundle.md): the CPU's plan in a bundle for a device, and where the CPU's
// weights come from. They are not stored a second time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "device/launch_plan.h"
#include "plan.h"

namespace ark {

// A matrix of the CPU's plan: indices of its weights, and how it lies on the device.
struct HostMatrix {
  static constexpr size_t kNone = SIZE_MAX;

  LaunchMatrix matrix;
  size_t codes = kNone;  // or the numbers, of float weights
  size_t scales = kNone, offsets = kNone;
};

// A vector of float32: a weight of the CPU's plan, and one of the device's.
struct HostVector {
  size_t to, from;
};

struct HostPlan {
  Plan plan;          // its weights lie in memory of their own
  int64_t bytes = 0;  // of that memory
  std::vector<HostMatrix> matrices;
  std::vector<HostVector> vectors;
};

// Raises ARK_INVALID_BUNDLE, also for a weight that does not come from the device's in exactly one
// way, or has another shape or type there. Of limits the size of weights.bin is not used.
HostPlan parse_host_plan(const char* text, size_t size, const PlanLimits& limits,
                         const LaunchPlan& launches);

}  // namespace ark
