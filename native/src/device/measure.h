// How fast a model runs here: whole steps, timed.
#pragma once

#include <memory>

#include "device/choice.h"

namespace ark {

// A session of its own on the device or the CPU, some seconds at most beside its making.
// host_weights, where it is given, keeps the CPU's weights. Raises what sessions raise.
Speeds measure_on(const std::shared_ptr<const Model>& model, const SessionOptions& options,
                  int32_t on, std::shared_ptr<const Region>* host_weights = nullptr);

}  // namespace ark
