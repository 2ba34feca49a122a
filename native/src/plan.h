// plan.json (docs/bundle.md): parsed, every index resolved and every size checked.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "json.h"
#include "kernel.h"

namespace ark {

enum class Rows { tokens, outputs, fixed };

struct PlanBuffer {
  std::string name;
  DType dtype;
  Rows rows;
  int64_t max_rows;
  int64_t columns;
  int64_t offset;  // in the arena, bytes
  int64_t bytes;
};

struct PlanWeight {
  std::string name;
  DType dtype;
  int32_t rank;      // 1 or 2
  int64_t shape[2];  // logical; shape[1] is 1 for rank 1
  int64_t offset;    // in weights.bin, bytes
  int64_t bytes;
};

enum class CacheKind { key, value, compressed };

struct PlanCache {
  std::string name;
  CacheKind kind;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t window;  // compressed caches: tokens per window and between windows
  int64_t stride;
};

struct PlanOperand {
  enum class Kind { buffer, weight, cache };
  std::string name;
  Kind kind;
  size_t index;    // into the plan's buffers, weights or caches
  int64_t column;  // a buffer's view
  int64_t columns;
};

struct PlanStep {
  std::string place;  // "plan.json: body[3] (matmul)", for messages
  std::string kernel;
  std::string stage;
  std::vector<PlanOperand> operands;
  std::vector<std::pair<std::string, double>> attributes;
  int keep_operand = -1;  // index into operands, or -1
  int32_t keep_layer = 0;

  const PlanOperand* operand(const std::string& name) const;  // nullptr when absent
  double attribute(const std::string& name, double otherwise) const;
};

struct Plan {
  int64_t chunk;
  int64_t output_rows;
  int64_t arena_bytes;
  std::vector<PlanBuffer> buffers;
  std::vector<PlanWeight> weights;
  std::vector<PlanCache> caches;
  std::vector<PlanStep> body;
  std::vector<PlanStep> head;
  size_t token_ids, head_input, head_rows, logits;  // indices into buffers
};

// What a plan must agree with.
struct PlanLimits {
  int64_t weights_bytes;  // size of weights.bin
  int64_t vocab_size;
  int64_t layers;
  int64_t kv_heads;
  int64_t chunk;
};

// Raises ARK_INVALID_BUNDLE. What it returns needs no more checks of structure; the kernels' own
// checks follow in bind().
Plan parse_plan(const char* text, size_t size, const PlanLimits& limits);
// The same of a document that is parsed already.
Plan read_plan(const JsonView& root, const PlanLimits& limits);

// Rules between steps that keep kernels inside their buffers: indices (token ids, selected blocks)
// reach a kernel only from the step that made them, and cache geometry agrees with attributes.
void check_dataflow(const Plan& plan);

// Bits of one element.
int64_t dtype_bits(DType dtype);
const char* dtype_name(DType dtype);

}  // namespace ark
