#include "device/step_expected.h"

#include <algorithm>

#include "bind.h"
#include "device/matrix_rows.h"
#include "error.h"
#include "isa.h"

namespace ark {
namespace {

constexpr int64_t kMostProducts = 1 << 24;  // of one step's check

[[noreturn]] void refuse(const LaunchStep& step, const std::string& found,
                         const std::string& expected) {
  fail(ARK_INVALID_BUNDLE, step.place + ": " + found, expected, "compile the bundle again");
}

const LaunchOperand& need(const LaunchStep& step, const char* name, LaunchOperand::Kind kind) {
  const LaunchOperand* operand = step.operand(name);
  if (!operand || operand->kind != kind) {
    refuse(step, "no operand " + quote(name) + " of its kind", "one");
  }
  return *operand;
}

// The numbers of one row of a weight.
void read_row(const StepImages& images, const LaunchMatrix& matrix, int64_t row,
              std::vector<float>* values) {
  const MatrixRow from = images.matrix_row(matrix, row);
  const int64_t per_word = 32 / matrix.bits;
  const uint32_t mask = matrix.bits == 32 ? ~0u : (1u << matrix.bits) - 1;
  float scale = 1, second = 0;
  for (int64_t i = 0; i < matrix.inputs; i++) {
    uint32_t bits = word_at(from.codes, i / per_word) >> (i % per_word * matrix.bits) & mask;
    if (from.scales && i % matrix.group == 0) {
      MatrixGroup group = from.group(matrix, i / matrix.group);
      scale = group.scale();
      second = group.second();
    }
    auto code = static_cast<float>(bits);
    float value = (code - second) * scale;
    if (matrix.values == LaunchMatrix::Values::minimum) value = code * scale + second;
    if (matrix.values == LaunchMatrix::Values::f32) value = word_as_float(bits);
    if (matrix.values == LaunchMatrix::Values::f16)
      value = half_to_float(static_cast<uint16_t>(bits));
    if (matrix.values == LaunchMatrix::Values::bf16) value = word_as_float(bits << 16);
    (*values)[static_cast<size_t>(i)] = value;
  }
}

void embed(StepImages* images) {
  const LaunchStep& step = images->step();
  const LaunchMatrix& matrix = need(step, "codes", LaunchOperand::Kind::matrix).matrix;
  const LaunchOperand& ids = need(step, "ids", LaunchOperand::Kind::buffer);
  const LaunchOperand& y = need(step, "y", LaunchOperand::Kind::buffer);
  if (ids.is_float || !y.is_float || y.columns != matrix.inputs) {
    refuse(step, "operands that do not fit the weight", "int32 ids and float32 y of its inputs");
  }
  const auto factor = static_cast<float>(step.attribute("scale", 1));
  std::vector<float> row(static_cast<size_t>(matrix.inputs));
  for (int64_t t = 0; t < images->scalars().tokens; t++) {
    int32_t id = *images->ids(ids, t);
    if (id < 0 || id >= matrix.outputs()) refuse(step, "ids that are no rows", "rows");
    read_row(*images, matrix, id, &row);
    for (int64_t i = 0; i < y.columns; i++) {
      images->row(y, t)[i] = factor * row[static_cast<size_t>(i)];
    }
  }
}

void matmul(StepImages* images, const StepImages& found) {
  const LaunchStep& step = images->step();
  const LaunchMatrix& matrix = need(step, "codes", LaunchOperand::Kind::matrix).matrix;
  const LaunchOperand& x = need(step, "x", LaunchOperand::Kind::buffer);
  const LaunchOperand& y = need(step, "y", LaunchOperand::Kind::buffer);
  const LaunchOperand* residual = step.operand("residual");
  const int64_t outputs = matrix.outputs();
  if (!x.is_float || !y.is_float || x.columns != matrix.inputs || y.columns != outputs ||
      (residual && (residual->kind != LaunchOperand::Kind::buffer || !residual->is_float ||
                    residual->columns != outputs))) {
    refuse(step, "operands that do not fit the weight", "float32 rows of its inputs and outputs");
  }
  const int64_t tokens = images->scalars().tokens;
  const int64_t count =
      std::min(outputs, std::max<int64_t>(64, kMostProducts / (tokens * matrix.inputs)));
  const double factor = step.attribute("scale", 1);
  std::vector<float> row(static_cast<size_t>(matrix.inputs));
  std::vector<char> computed(static_cast<size_t>(outputs), 0);
  for (int64_t k = 0; k < count; k++) {
    int64_t o = count == 1 ? 0 : k * (outputs - 1) / (count - 1);
    if (computed[static_cast<size_t>(o)]) continue;
    computed[static_cast<size_t>(o)] = 1;
    read_row(*images, matrix, o, &row);
    for (int64_t t = 0; t < tokens; t++) {
      const float* inputs = images->row(x, t);
      double sum = 0;
      for (int64_t i = 0; i < matrix.inputs; i++) {
        sum += static_cast<double>(inputs[i]) * row[static_cast<size_t>(i)];
      }
      sum *= factor;
      if (residual) sum += images->row(*residual, t)[o];
      images->row(y, t)[o] = static_cast<float>(sum);
    }
  }
  for (int64_t t = 0; t < tokens; t++) {
    for (int64_t o = 0; o < outputs; o++) {
      if (!computed[static_cast<size_t>(o)]) images->row(y, t)[o] = found.row(y, t)[o];
    }
  }
}

void run_kernel(StepImages* images, ThreadPool* pool) {
  const LaunchStep& step = images->step();
  const KernelEntry* kernel = find_kernel(step.kernel.c_str(), usable_isas().front());
  if (!kernel) refuse(step, "no kernel of that name in this runtime", "one that it has");
  std::vector<Operand> operands;
  for (const char* const* name = kernel->operands; *name; name++) {
    bool optional = **name == '?';
    const LaunchOperand* operand = step.operand(*name + (optional ? 1 : 0));
    if (!operand ? !optional : operand->kind == LaunchOperand::Kind::matrix) {
      refuse(step, "no operand " + quote(*name) + " of its kind", "one");
    }
    operands.push_back(operand ? images->operand(*operand)
                               : Operand{nullptr, {1, 1, 1, 1}, 0, 0, DType::f32});
  }
  std::vector<double> attributes;
  std::string wrong;
  if (!match_attributes(*kernel, step.attributes, &attributes, &wrong)) {
    refuse(step, wrong, "the kernel's own attributes");
  }
  Call call{};
  call.operands = operands.data();
  call.attributes = attributes.data();
  call.tokens = images->scalars().tokens;
  call.past = images->scalars().past;
  call.total = images->scalars().total;
  call.parallel = pool->parallel();
  const char* unsound = kernel->check ? kernel->check(call) : nullptr;
  if (unsound) refuse(step, unsound, "a step that its kernel accepts");
  constexpr size_t kMostScratch = size_t{1} << 31;
  size_t bytes = kernel->scratch ? kernel->scratch(call) : 0;
  if (bytes > kMostScratch)
    refuse(step, std::to_string(bytes) + " bytes of scratch", "at most 2^31");
  std::vector<char> scratch(bytes + 64);
  auto address = reinterpret_cast<uintptr_t>(scratch.data());
  call.scratch = scratch.data() + (64 - address % 64) % 64;
  kernel->run(call);
}

}  // namespace

void compute_expected(StepImages* images, const StepImages& found, ThreadPool* pool) {
  const std::string& kernel = images->step().kernel;
  if (kernel == "embed") return embed(images);
  if (kernel == "matmul") return matmul(images, found);
  run_kernel(images, pool);
}

}  // namespace ark
