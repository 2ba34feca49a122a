// The self-test of a device: each kernel of a bundle, at the bundle's shapes and on random numbers,
// against the CPU.
#pragma once

#include <cstdint>
#include <string>

#include "device/step_images.h"

namespace ark {

struct Verdict {
  std::string wrong;  // empty, or what is wrong with which kernel
  int64_t kernels = 0;
  double difference = 0;  // the largest that was found
};

// Tokens that caches of a self-test hold, so that blocks have to be chosen where there is a choice;
// at most the bundle's own context.
int64_t self_test_capacity(const LaunchPlan& plan, int64_t context);

// Raises what the runner raises, and ARK_INVALID_BUNDLE for steps that name no computation.
Verdict self_test(const LaunchPlan& plan, const char* weights, int64_t capacity,
                  StepRunner* runner);

// As the cache keeps it; parse gives false for anything else.
std::string verdict_text(const Verdict& verdict);
bool parse_verdict(const std::string& text, Verdict* verdict);

}  // namespace ark
