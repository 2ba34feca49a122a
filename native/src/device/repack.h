// From a device's weights to the CPU's panels (docs/bundle.md, weights.bin).
#pragma once

#include "device/host_plan.h"
#include "mapped_file.h"
#include "memory.h"
#include "thread_pool.h"

namespace ark {

// The CPU's weights, as the cpu backend packs them. weights is the mapped weights.bin; its pages
// are given up as they are done, so that both never stay in memory. Raises ARK_OUT_OF_MEMORY.
Region repack(const HostPlan& host, const LaunchPlan& launches, const MappedFile& weights,
              ThreadPool* pool);

}  // namespace ark
