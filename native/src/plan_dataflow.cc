#include <vector>

#include "error.h"
#include "plan.h"

namespace ark {
namespace {

using Kind = PlanOperand::Kind;

[[noreturn]] void refuse(const PlanStep& step, const std::string& found,
                         const std::string& expected) {
  fail(ARK_INVALID_BUNDLE, step.place + ": " + found, expected, "compile the bundle again");
}

bool overlap(const PlanBuffer& a, const PlanBuffer& b) {
  return a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

// Weights are mapped read-only and packed in padded panels: an operand that a kernel may write must
// not be one, and one that a kernel reads as packed must be one.
bool is_weight_operand(const std::string& name) {
  for (const char* known : {"codes", "scales", "offsets", "weight", "norm", "short", "long"}) {
    if (name == known) return true;
  }
  return false;
}

void check_kinds(const PlanStep& step) {
  for (const PlanOperand& operand : step.operands) {
    bool wanted = is_weight_operand(operand.name);
    if ((operand.kind == Kind::weight) != wanted) {
      refuse(step,
             "the operand " + quote(operand.name) + (wanted ? " is no weight" : " is a weight"),
             wanted ? "a weight" : "a buffer or cache, which can be written");
    }
  }
}

// Attributes that repeat a compressed cache's geometry must agree with it, because the cache's size
// comes from its own.
void check_windows(const Plan& plan, const PlanStep& step, const char* operand_name,
                   const char* window, const char* stride, int64_t factor) {
  const PlanOperand* operand = step.operand(operand_name);
  if (!operand || operand->kind != Kind::cache) return;
  const PlanCache& cache = plan.caches[operand->index];
  if (cache.kind != CacheKind::compressed) return;
  if (step.attribute(window, 0) * static_cast<double>(factor) !=
          static_cast<double>(cache.window) ||
      step.attribute(stride, 0) * static_cast<double>(factor) !=
          static_cast<double>(cache.stride)) {
    refuse(step,
           std::string(window) + " and " + stride + " differ from those of the cache " +
               quote(cache.name),
           std::to_string(cache.window / factor) + " and " + std::to_string(cache.stride / factor));
  }
}

// A step that reads indices must not write over them while it runs.
void check_apart(const Plan& plan, const PlanStep& step, const PlanOperand& indices) {
  for (const PlanOperand& other : step.operands) {
    if (&other == &indices || other.kind != Kind::buffer) continue;
    if (overlap(plan.buffers[other.index], plan.buffers[indices.index])) {
      refuse(step, "the operand " + quote(other.name) + " shares bytes with " + quote(indices.name),
             "a place of its own");
    }
  }
}

// Who filled an i32 buffer, as far as the walk has come: the runtime, a step, or nobody.
struct Source {
  bool runtime = false;
  const PlanStep* step = nullptr;
  const PlanOperand* written = nullptr;
};

void check_read(const Plan& plan, const PlanStep& step, const PlanOperand& operand,
                const Source& source) {
  const std::string name = quote(plan.buffers[operand.index].name);
  if (operand.name == "ids") {
    if (!source.runtime) refuse(step, "ids from " + name, "the buffer 'token_ids', untouched");
    return;
  }
  if (operand.name != "blocks") {
    refuse(step, "the operand " + quote(operand.name) + " is i32", "another type");
  }
  // A list of blocks is sound only for a reader that divides it as its writer did.
  const PlanStep* writer = source.step;
  if (!writer || writer->kernel != "select_blocks" || source.written->column != operand.column ||
      source.written->columns != operand.columns ||
      writer->attribute("block_size", 0) != step.attribute("block_size", 0)) {
    refuse(step, "blocks from " + name,
           "what an earlier select_blocks with the same block_size wrote there, untouched");
  }
}

void check_list(const Plan& plan, const std::vector<PlanStep>& steps, bool body) {
  std::vector<size_t> index_buffers;
  for (size_t i = 0; i < plan.buffers.size(); i++) {
    if (plan.buffers[i].dtype == DType::i32) index_buffers.push_back(i);
  }
  std::vector<Source> sources(plan.buffers.size());
  sources[plan.token_ids].runtime = body;
  for (const PlanStep& step : steps) {
    check_kinds(step);
    check_windows(plan, step, "compressed", "window", "stride", 1);
    check_windows(plan, step, "fine", "kernel_size", "kernel_stride", 1);
    check_windows(plan, step, "coarse", "kernel_size", "kernel_stride", 4);
    for (const PlanOperand& operand : step.operands) {
      if (operand.kind != Kind::buffer || plan.buffers[operand.index].dtype != DType::i32) continue;
      if (operand.name == "y") continue;
      check_read(plan, step, operand, sources[operand.index]);
      check_apart(plan, step, operand);
    }
    for (const PlanOperand& operand : step.operands) {
      if (operand.kind != Kind::buffer) continue;
      const PlanBuffer& touched = plan.buffers[operand.index];
      bool reads_indices = touched.dtype == DType::i32 && operand.name != "y";
      for (size_t i : index_buffers) {
        if (reads_indices && i == operand.index) continue;
        if (overlap(touched, plan.buffers[i])) sources[i] = {};
      }
    }
    const PlanOperand* y = step.operand("y");
    if (y && y->kind == Kind::buffer && plan.buffers[y->index].dtype == DType::i32) {
      sources[y->index] = {false, &step, y};
    }
  }
}

}  // namespace

void check_dataflow(const Plan& plan) {
  check_list(plan, plan.body, true);
  check_list(plan, plan.head, false);
}

}  // namespace ark
