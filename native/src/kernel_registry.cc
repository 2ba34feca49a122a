// The table of kernels. Static constructors of the kernel objects fill it, before anything that
// needs construction may be relied on: hence plain arrays.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "isa.h"

namespace ark {
namespace {

constexpr int kMostEntries = 256;
const KernelEntry* entries[kMostEntries];
int entry_count = 0;

bool can_stand_in(Isa isa, Isa limit) {
  const std::vector<Isa>& usable = usable_isas();
  return isa <= limit && std::find(usable.begin(), usable.end(), isa) != usable.end();
}

}  // namespace

KernelRegistrar::KernelRegistrar(const KernelEntry& entry) {
  if (entry_count == kMostEntries) {
    std::fputs("arkinfer: kMostEntries in kernel_registry.cc is too small\n", stderr);
    std::abort();
  }
  entries[entry_count++] = &entry;
}

const KernelEntry* find_kernel(const char* name, Isa isa) {
  const KernelEntry* best = nullptr;
  for (int i = 0; i < entry_count; i++) {
    const KernelEntry* entry = entries[i];
    if (std::strcmp(entry->name, name) != 0 || !can_stand_in(entry->isa, isa)) {
      continue;
    }
    if (!best || entry->isa > best->isa) best = entry;
  }
  return best;
}

const KernelEntry* kernel_at(int index) { return index < entry_count ? entries[index] : nullptr; }

}  // namespace ark
