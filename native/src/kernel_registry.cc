// The table of kernels. Static constructors of the kernel objects fill it, before anything that
// needs construction may be relied on: hence plain arrays.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernel.h"

namespace ark {
namespace {

constexpr int kMostEntries = 256;
const KernelEntry* entries[kMostEntries];
int entry_count = 0;

bool at_most(Isa isa, Isa limit) {
  bool arm = limit >= Isa::neon;
  return isa <= limit && (isa == Isa::scalar || (isa >= Isa::neon) == arm);
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
    if (std::strcmp(entry->name, name) != 0 || !at_most(entry->isa, isa)) continue;
    if (!best || entry->isa > best->isa) best = entry;
  }
  return best;
}

}  // namespace ark
