// launch_files() with a plan.cpu.json beside them: a device's weights, which the CPU repacks.
#pragma once

#include "fixture.h"

namespace ark::testing {

Files host_files();

}  // namespace ark::testing
