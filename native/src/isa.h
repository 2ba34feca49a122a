// Instruction sets: which ones this build holds kernels for, and which of them this CPU runs.
#pragma once

#include <string>
#include <vector>

#include "kernel.h"

namespace ark {

const char* isa_name(Isa isa);
bool parse_isa(const std::string& name, Isa* isa);
// Best first; never empty, because every build holds the scalar kernels.
const std::vector<Isa>& usable_isas();

}  // namespace ark
