// Binding: a plan's steps joined with kernels and memory for one session.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arkinfer.h"
#include "compiled_step.h"
#include "kernel.h"
#include "model.h"

namespace ark {

// ark_session_options with every default filled in.
struct SessionOptions {
  int64_t context;
  int32_t threads;
  DType cache_dtype;
  int32_t activations;
  Isa isa;
  int32_t kernels;             // ark_kernels
  int32_t on = ARK_ON_FASTER;  // ark_on
};
// Raises ARK_INVALID_ARGUMENT for values outside their range. options may be null.
SessionOptions resolve_options(const Model& model, const ark_session_options* options);

// The kernel set of that name; null or empty: the best. Raises ARK_INVALID_ARGUMENT.
Isa choose_isa(const char* name);
// Attributes by name, in the kernel's order, with its defaults. False: *wrong says why.
bool match_attributes(const KernelEntry& kernel,
                      const std::vector<std::pair<std::string, double>>& given,
                      std::vector<double>* values, std::string* wrong);

// The number type of compressed keys beside caches of that type.
DType compressed_dtype(DType cache);

// What a cache occupies for a context.
struct CacheShape {
  int64_t dims[4];
  int32_t rank;
  DType dtype;
  int64_t bytes;
};
CacheShape cache_shape(const PlanCache& cache, const SessionOptions& options);

struct BoundStep {
  const PlanStep* plan;
  const KernelEntry* kernel;
  std::vector<Operand> operands;   // in the kernel's order; rows are set before each call
  std::vector<bool> moving_rows;   // operands whose row count is that of the call
  std::vector<double> attributes;  // in the kernel's order
  int output = -1;                 // the operand that a trace shows
  int keep = -1;                   // the operand whose last row is kept
  // What computes it in the kernel's place, and from how many tokens on which of them does.
  std::unique_ptr<CompiledCall> compiled;
};

struct BoundPlan {
  std::vector<BoundStep> body;
  std::vector<BoundStep> head;
  int64_t scratch_bytes = 0;
  std::unique_ptr<CompiledMemory> compiled;  // of the steps that have a CompiledCall
  std::unique_ptr<Tuning> tuning;            // what they choose by, if anything
};

// Where a session's memory is. Without it, binding still does every check and sizes the scratch.
struct BoundMemory {
  const char* weights = nullptr;
  char* arena = nullptr;
  std::vector<char*> caches;  // one per cache of the plan
};

// Raises ARK_INVALID_BUNDLE for a step that its kernel refuses.
BoundPlan bind(const Model& model, const SessionOptions& options, const BoundMemory& memory);

}  // namespace ark
