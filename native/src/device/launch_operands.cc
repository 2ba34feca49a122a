#include "device/launch_operands.h"

#include "device/launch_plan.h"
#include "error.h"

namespace ark {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 31;

struct ValuesName {
  const char* name;
  LaunchMatrix::Values values;
  int64_t bits;  // of floats
};
constexpr ValuesName kValues[] = {{"f32", LaunchMatrix::Values::f32, 32},
                                  {"f16", LaunchMatrix::Values::f16, 16},
                                  {"bf16", LaunchMatrix::Values::bf16, 16},
                                  {"offset", LaunchMatrix::Values::offset, 0},
                                  {"minimum", LaunchMatrix::Values::minimum, 0}};

size_t look_up(const JsonView& view, const LaunchIndex& index) {
  auto found = index.find(view.string());
  if (found == index.end()) view.refuse(quote(view.string()), "a name from the list");
  return found->second;
}

void check_bytes(const JsonView& view, const LaunchPlan& plan, size_t weight, int64_t words) {
  if (plan.weights[weight].bytes % 4 != 0 || plan.weights[weight].bytes / 4 != words) {
    view.refuse("a range of " + std::to_string(plan.weights[weight].bytes) + " bytes",
                std::to_string(words) + " words of four");
  }
}

LaunchOperand read_operand(const JsonView& entry, const LaunchPlan& plan,
                           const LaunchIndex& weights, const LaunchIndex& caches) {
  LaunchOperand operand;
  if (entry.has("matrix")) {
    operand.kind = LaunchOperand::Kind::matrix;
    operand.matrix = read_matrix(entry.at("matrix"), plan, weights);
  } else if (entry.has("weight")) {
    operand.kind = LaunchOperand::Kind::weight;
    operand.index = look_up(entry.at("weight"), weights);
  } else if (entry.has("cache")) {
    operand.kind = LaunchOperand::Kind::cache;
    operand.index = look_up(entry.at("cache"), caches);
  } else {
    auto most = static_cast<int64_t>(plan.slots.size()) - 1;
    operand.index = static_cast<size_t>(entry.at("slot").integer(0, most));
    operand.is_float = entry.at("type").string() == "f32";
    operand.stride = entry.at("stride").integer(1, kMostElements);
    operand.columns = entry.at("columns").integer(1, operand.stride);
    operand.column = entry.at("column").integer(0, operand.stride - operand.columns);
  }
  return operand;
}

}  // namespace

LaunchMatrix read_matrix(const JsonView& entry, const LaunchPlan& plan,
                         const LaunchIndex& weights) {
  LaunchMatrix matrix;
  JsonView values = entry.at("values");
  const ValuesName* known = nullptr;
  for (const ValuesName& name : kValues) {
    if (values.string() == name.name) known = &name;
  }
  if (!known) values.refuse(quote(values.string()), "f32, f16, bf16, offset or minimum");
  matrix.values = known->values;
  matrix.inputs = entry.at("inputs").integer(1, kMostElements);
  matrix.bits = entry.at("bits").integer(2, 32);
  matrix.group = entry.at("group").integer(1, matrix.inputs);
  matrix.scale_words = entry.at("scale_words").integer(0, 2);
  bool codes = matrix.bits == 2 || matrix.bits == 4 || matrix.bits == 8;
  bool whole = matrix.inputs % matrix.group == 0 && matrix.inputs * matrix.bits % 32 == 0 &&
               matrix.group * matrix.bits % 32 == 0;
  if ((matrix.has_scales() ? !codes : matrix.bits != known->bits) || !whole ||
      matrix.has_scales() != (matrix.scale_words > 0)) {
    entry.refuse("rows that do not fill words", "bits, inputs and groups that do");
  }
  JsonView parts = entry.at("parts");
  int64_t first = 0;
  for (size_t i = 0; i < parts.array_size(); i++) {
    JsonView part = parts.item(i);
    LaunchMatrix::Part one{first, part.at("outputs").integer(1, kMostElements - first),
                           look_up(part.at("codes"), weights), 0};
    first += one.outputs;
    check_bytes(part, plan, one.codes, one.outputs * (matrix.inputs * matrix.bits / 32));
    if (matrix.has_scales()) {
      one.scales = look_up(part.at("scales"), weights);
      check_bytes(part, plan, one.scales,
                  one.outputs * (matrix.inputs / matrix.group) * matrix.scale_words);
    }
    matrix.parts.push_back(one);
  }
  if (matrix.parts.empty()) parts.refuse("no parts", "at least one");
  return matrix;
}

std::vector<LaunchOperand> read_operands(const JsonView& operands, const LaunchPlan& plan,
                                         const LaunchIndex& weights, const LaunchIndex& caches) {
  std::vector<LaunchOperand> list;
  for (size_t i = 0; i < operands.object_size(); i++) {
    list.push_back(read_operand(operands.member(i), plan, weights, caches));
    list.back().name = operands.key(i);
  }
  return list;
}

std::vector<std::pair<std::string, double>> read_attributes(const JsonView& attributes) {
  std::vector<std::pair<std::string, double>> list;
  for (size_t i = 0; i < attributes.object_size(); i++) {
    list.emplace_back(attributes.key(i), attributes.member(i).real());
  }
  return list;
}

const LaunchOperand* LaunchStep::operand(const std::string& name) const {
  for (const LaunchOperand& operand : operands) {
    if (operand.name == name) return &operand;
  }
  return nullptr;
}

double LaunchStep::attribute(const std::string& name, double otherwise) const {
  for (const auto& attribute : attributes) {
    if (attribute.first == name) return attribute.second;
  }
  return otherwise;
}

}  // namespace ark
