#include "device/choice.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <locale>
#include <sstream>

#include "arkinfer.h"
#include "device/device_cache.h"
#include "device/measure.h"
#include "isa.h"
#include "session.h"

namespace ark {
namespace {

constexpr const char* kCached = "choice";
// The job whose time decides: a question and an answer.
constexpr int kPrompt = 512;
constexpr int kAnswer = 128;

double job_seconds(const Speeds& speeds) {
  return kPrompt / speeds.prefill + kAnswer / speeds.decode;
}

std::string formatted(const char* format, double first, double second) {
  char text[128];
  std::snprintf(text, sizeof(text), format, first, second);
  return text;
}

std::string speeds_text(const Speeds& speeds) {
  return formatted("%.1f and %.1f tokens/s", speeds.prefill, speeds.decode);
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// What has an influence on the speeds.
std::string key_of(const Model& model, const SessionOptions& options, const std::string& device) {
  return model.id() + "\n" + ark_version() + "\n" + device + "\n" + cpu_name() + "\n" +
         isa_name(options.isa) + "\n" + std::to_string(options.threads) + "\n" +
         std::to_string(options.activations);
}

// What needs no measuring; false where both sides have to be compared.
bool is_settled(const Model& model, const SessionOptions& options, Choice* choice) {
  choice->on = ARK_ON_DEVICE;
  if (options.on != ARK_ON_FASTER) {
    choice->on = options.on;
    choice->why = "as it was asked for";
  } else if (!model.host_plan()) {
    choice->why = "the bundle holds no plan for the CPU";
  } else if (!device_kind(model).identity) {
    choice->why = "devices of this kind are not compared with the CPU";
  } else {
    return false;
  }
  return true;
}

Choice on_cpu(const std::string& device, const Error& error) {
  Choice choice;
  choice.device = device;
  choice.why = error.what();
  return choice;
}

}  // namespace

DeviceKind device_kind(const Model& model) {
  if (model.launches()->code.present) return {open_cuda, nullptr};
  if (model.manifest().file("kernels.metal")) return {open_metal, nullptr};
  return {open_opencl, opencl_identity};
}

bool may_replace(const Model& model, const SessionOptions& options, const Error& error) {
  return options.on == ARK_ON_FASTER && model.host_plan() &&
         (error.status() == ARK_EXECUTOR_FAILED || error.status() == ARK_OUT_OF_MEMORY);
}

Choice choose(const std::shared_ptr<const Model>& model, const SessionOptions& options,
              std::shared_ptr<const Region>* host_weights) {
  Choice choice;
  if (is_settled(*model, options, &choice)) return choice;
  std::string key;
  try {
    const std::string device = device_kind(*model).identity();
    choice.device = first_line(device);
    key = key_of(*model, options, device);
    std::string text;
    if (read_cached(kCached, key, &text) && parse_choice(text, &choice)) return choice;
    choice.device_speeds = measure_on(model, options, ARK_ON_DEVICE);
  } catch (const Error& error) {
    if (!may_replace(*model, options, error)) throw;
    return on_cpu(choice.device, error);
  }
  try {
    choice.cpu_speeds = measure_on(model, options, ARK_ON_CPU, host_weights);
  } catch (const Error& error) {
    if (error.status() != ARK_OUT_OF_MEMORY) throw;
    choice.on = ARK_ON_DEVICE;
    choice.why = error.what();
    return choice;
  }
  decide(&choice);
  if (choice.on == ARK_ON_DEVICE) host_weights->reset();
  write_cached(kCached, key, choice_text(choice));
  return choice;
}

Choice kept_choice(const Model& model, const SessionOptions& options) {
  Choice choice;
  if (!model.launches()) return choice;
  if (is_settled(model, options, &choice)) return choice;
  try {
    const std::string device = device_kind(model).identity();
    choice.device = first_line(device);
    std::string text;
    if (read_cached(kCached, key_of(model, options, device), &text) &&
        parse_choice(text, &choice)) {
      return choice;
    }
  } catch (const Error& error) {
    if (!may_replace(model, options, error)) throw;
    return on_cpu(choice.device, error);
  }
  choice.on = ARK_ON_FASTER;
  choice.why = "the first load will measure both";
  return choice;
}

void decide(Choice* choice) {
  const double device = job_seconds(choice->device_speeds);
  const double cpu = job_seconds(choice->cpu_speeds);
  choice->on = device < cpu ? ARK_ON_DEVICE : ARK_ON_CPU;
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text << "a prompt of " << kPrompt << " tokens and an answer of " << kAnswer << " take "
       << formatted("%.3g s there and %.3g s on ", device, cpu)
       << "the CPU (prompt and answer: " << speeds_text(choice->device_speeds) << " there, "
       << speeds_text(choice->cpu_speeds) << " on the CPU)";
  choice->why = text.str();
}

std::string choice_text(const Choice& choice) {
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text.precision(6);
  for (const Speeds* speeds : {&choice.device_speeds, &choice.cpu_speeds}) {
    text << speeds->prefill << " " << speeds->decode << "\n";
  }
  return text.str();
}

bool parse_choice(const std::string& text, Choice* choice) {
  std::istringstream stream(text);
  stream.imbue(std::locale::classic());
  double read[4];
  for (double& number : read) {
    if (!(stream >> number) || !(number > 0) || !std::isfinite(number)) return false;
  }
  choice->device_speeds = {read[0], read[1]};
  choice->cpu_speeds = {read[2], read[3]};
  decide(choice);
  return true;
}

}  // namespace ark
