// launches.json (docs/bundle.md): a plan for a device, parsed and checked.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "device/launch_operands.h"
#include "json.h"
#include "plan.h"

namespace ark {

// What sizes and kernels are told about a call.
struct LaunchScalars {
  int64_t tokens = 0;
  int64_t past = 0;
  int64_t total = 0;
  int64_t capacity = 0;  // of the caches: the context rounded up to 64
};

// A sum, product, quotient, ... of numbers and scalars.
struct LaunchSize {
  enum class Kind { number, scalar, add, subtract, multiply, divide, modulo, least, most };
  Kind kind = Kind::number;
  int64_t number = 0;                         // of a number
  int64_t LaunchScalars::* scalar = nullptr;  // of a scalar
  std::vector<LaunchSize> sides;              // of the others: two

  // Raises ARK_INVALID_BUNDLE for a result that is negative or beyond 2^50.
  int64_t evaluate(const LaunchScalars& scalars) const;

 private:
  // Of a part, which may be negative as long as the whole is not.
  int64_t value(const LaunchScalars& scalars) const;
};

// A size, and the name of a scalar, as they are written. Raise ARK_INVALID_BUNDLE.
LaunchSize read_launch_size(const JsonView& view);
int64_t LaunchScalars::* read_launch_scalar(const JsonView& view);

// Raise ARK_INVALID_BUNDLE.
int64_t LaunchScalars::* read_scalar(const JsonView& view);
LaunchSize read_size(const JsonView& view, int depth = 0);

struct LaunchArgument {
  enum class Kind { slot, weight, cache, scalar };
  Kind kind;
  size_t index;                     // into slots, weights or caches
  int64_t LaunchScalars::* scalar;  // of a scalar
  bool image = false;               // of a weight: read through an image of four words a place
};

struct Launch {
  std::string kernel;
  std::vector<LaunchArgument> arguments;
  LaunchSize groups[3];
  int64_t lanes;
  int64_t shared_bytes;       // of a group
  int64_t least, most;        // tokens for which it is used
  size_t module = 0;          // of the code
  int64_t dynamic_bytes = 0;  // shared memory that the launch has to ask for
};

// Where a step's result can be seen: float32 or int32 in columns of a buffer.
struct LaunchOutput {
  bool present = false;
  size_t slot = 0;
  bool is_float = true;
  int64_t stride = 0, column = 0, columns = 0;
};

struct LaunchStep {
  std::string place;  // "launches.json: body[3] ('matmul')"
  std::string kernel;
  std::string stage;
  LaunchOutput output;
  int32_t keep_layer = -1;  // the layer whose selected blocks the output holds
  int64_t block_size = 64;
  std::vector<Launch> launches;
  std::vector<LaunchOperand> operands;
  std::vector<std::pair<std::string, double>> attributes;

  const LaunchOperand* operand(const std::string& name) const;  // nullptr when absent
  double attribute(const std::string& name, double otherwise) const;
};

struct LaunchWeight {
  std::string name;
  int64_t offset, bytes;
};

struct LaunchCache {
  std::string name;
  CacheKind kind;
  LaunchSize bytes;
  int64_t kv_heads, head_dim;
};

// One piece of modules.bin.
struct LaunchModule {
  std::string name;
  int64_t offset, bytes;
};

// What the code of a bundle is for, where it is compiled code.
struct LaunchCode {
  bool present = false;
  std::string architecture;  // "sm_87", "compute_80"
  int capability = 0;        // 87, 80
  bool is_ptx = false;       // else machine code
  int toolkit = 0;           // 13000: compiled with CUDA 13.0
  std::vector<LaunchModule> modules;
};

struct LaunchPlan {
  LaunchCode code;
  int64_t chunk = 0;
  int64_t output_rows = 0;
  bool half_caches = true;              // fp16, else fp32
  std::vector<std::string> extensions;  // of OpenCL, that kernels need
  std::vector<LaunchSize> slots;
  std::vector<LaunchWeight> weights;
  std::vector<LaunchCache> caches;
  std::vector<LaunchStep> body, head;
  size_t token_ids = 0, head_input = 0, head_rows = 0, logits = 0;  // slots
  int64_t head_columns = 0;

  bool half_products() const;  // whether kernels compute in fp16
};

// Raises ARK_INVALID_BUNDLE for modules that leave a file of this size.
void check_modules(const LaunchCode& code, int64_t bytes);

// Raises ARK_INVALID_BUNDLE. Slots hold token ids, head rows and logits for a chunk.
LaunchPlan parse_launch_plan(const char* text, size_t size, const PlanLimits& limits);

}  // namespace ark
