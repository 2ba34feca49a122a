// Whether a bundle for a device runs there or on the CPU: the faster of those that are right.
#pragma once

#include <memory>
#include <string>

#include "bind.h"
#include "device/device_run.h"
#include "error.h"
#include "model.h"

namespace ark {

// Tokens per second; 0: not measured.
struct Speeds {
  double prefill = 0, decode = 0;
};

struct Choice {
  int32_t on = ARK_ON_CPU;  // ark_on
  std::string device;       // its name, where there is one
  std::string why;
  Speeds device_speeds, cpu_speeds;
};

// How a bundle's device is opened, and told from others.
struct DeviceKind {
  std::unique_ptr<DeviceRun> (*open)(const DeviceModel& model, int64_t capacity,
                                     const std::atomic<bool>* cancelled);
  // The device that open would take, its driver included; the first line names it. Null: devices of
  // this kind are not compared with the CPU.
  std::string (*identity)();
};
DeviceKind device_kind(const Model& model);

// Whether the CPU may take the place of a device that raises this: not where the bundle is wrong.
bool may_replace(const Model& model, const SessionOptions& options, const Error& error);

// Decides. The first time, whole steps of both are measured, and what was found is kept in the
// user's cache folder, by bundle, device, driver, CPU and threads. Raises what sessions raise.
// *host_weights is the CPU's weights where they were made on the way and the CPU was chosen.
Choice choose(const std::shared_ptr<const Model>& model, const SessionOptions& options,
              std::shared_ptr<const Region>* host_weights);
// The same without measuring: ARK_ON_FASTER where nothing is kept.
Choice kept_choice(const Model& model, const SessionOptions& options);

// Fills on and why from the speeds.
void decide(Choice* choice);
// As the cache keeps it; parse gives false for anything else.
std::string choice_text(const Choice& choice);
bool parse_choice(const std::string& text, Choice* choice);

}  // namespace ark
