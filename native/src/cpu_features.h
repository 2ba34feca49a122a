// What the processor and the operating system below this process can do.
#pragma once

#include "kernel.h"

namespace ark {

// Whether kernels compiled for an instruction set run here. For amx, the first call asks the
// operating system for the tile registers of this process.
bool cpu_runs(Isa isa);

// Whether the CPU has instructions for CRC-32C.
bool cpu_has_crc32();

}  // namespace ark
