// What a step should give, computed on the CPU: by the runtime's own kernels, and for weights that
// lie as the device wants them in plain loops.
#pragma once

#include "device/step_images.h"
#include "thread_pool.h"

namespace ark {

// Turns what the device was given into what it should give. Products of large weights are computed
// for some outputs alone; the others are taken from found. Raises ARK_INVALID_BUNDLE for a step
// that no kernel of the CPU computes.
void compute_expected(StepImages* images, const StepImages& found, ThreadPool* pool);

}  // namespace ark
