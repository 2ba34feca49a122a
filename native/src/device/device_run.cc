#include "device/device_run.h"

namespace ark {

DeviceMemory device_memory(const LaunchPlan& plan, int64_t capacity) {
  LaunchScalars scalars;
  scalars.capacity = capacity;
  DeviceMemory memory;
  for (const LaunchSize& slot : plan.slots) memory.slots += slot.evaluate(scalars);
  for (const LaunchCache& cache : plan.caches) {
    int64_t bytes = cache.bytes.evaluate(scalars);
    (cache.kind == CacheKind::compressed ? memory.compressed_keys : memory.key_values) += bytes;
  }
  return memory;
}

}  // namespace ark
