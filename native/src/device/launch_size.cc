// Sizes in launches.json: read, and computed for a call.
#include <algorithm>

#include "device/launch_plan.h"
#include "error.h"

namespace ark {
namespace {

constexpr int64_t kMostBytes = int64_t{1} << 50;
constexpr int kDeepest = 32;  // nesting of a size

using Kind = LaunchSize::Kind;

struct ScalarName {
  const char* name;
  int64_t LaunchScalars::* scalar;
};
constexpr ScalarName kScalars[] = {{"tokens", &LaunchScalars::tokens},
                                   {"past", &LaunchScalars::past},
                                   {"total", &LaunchScalars::total},
                                   {"capacity", &LaunchScalars::capacity}};

struct OperatorName {
  const char* name;
  Kind kind;
};
constexpr OperatorName kOperators[] = {
    {"+", Kind::add},    {"-", Kind::subtract}, {"*", Kind::multiply}, {"/", Kind::divide},
    {"%", Kind::modulo}, {"min", Kind::least},  {"max", Kind::most}};

[[noreturn]] void refuse_value(int64_t value) {
  fail(ARK_INVALID_BUNDLE, "launches.json: a size of " + std::to_string(value), "0 to 2^50",
       "compile the bundle again");
}

}  // namespace

int64_t LaunchScalars::* read_scalar(const JsonView& view) {
  for (const ScalarName& known : kScalars) {
    if (view.string() == known.name) return known.scalar;
  }
  view.refuse(quote(view.string()), "tokens, past, total or capacity");
}

LaunchSize read_size(const JsonView& view, int depth) {
  LaunchSize size;
  if (depth > kDeepest) view.refuse("a size nested deeper than 32", "a flatter one");
  if (view.is(Json::Type::number)) {
    size.number = view.integer(0, kMostBytes);
  } else if (view.is(Json::Type::string)) {
    size.kind = Kind::scalar;
    size.scalar = read_scalar(view);
  } else {
    if (view.array_size() != 3) view.refuse("not three parts", "an operator and two sizes");
    const std::string& name = view.item(0).string();
    auto known = std::find_if(std::begin(kOperators), std::end(kOperators),
                              [&](const OperatorName& entry) { return name == entry.name; });
    if (known == std::end(kOperators)) {
      view.refuse("the operator " + quote(name), "+, -, *, /, %, min or max");
    }
    size.kind = known->kind;
    size.sides = {read_size(view.item(1), depth + 1), read_size(view.item(2), depth + 1)};
  }
  return size;
}

int64_t LaunchSize::evaluate(const LaunchScalars& scalars) const {
  int64_t result = value(scalars);
  if (result < 0) refuse_value(result);
  return result;
}

int64_t LaunchSize::value(const LaunchScalars& scalars) const {
  if (kind == Kind::number) return number;
  if (kind == Kind::scalar) return scalars.*scalar;
  int64_t a = sides[0].value(scalars);
  int64_t b = sides[1].value(scalars);
  int64_t result = 0;
  switch (kind) {
    case Kind::add:
      result = a + b;
      break;
    case Kind::subtract:
      result = a - b;
      break;
    case Kind::multiply:
      if (!checked_multiply(a, b, &result)) refuse_value(-1);
      break;
    case Kind::divide:
    case Kind::modulo:
      // Of what is below zero, quotients are rounded differently in different languages.
      if (a < 0 || b <= 0) refuse_value(-1);
      result = kind == Kind::divide ? a / b : a % b;
      break;
    case Kind::least:
      result = std::min(a, b);
      break;
    default:
      result = std::max(a, b);
  }
  if (result < -kMostBytes || result > kMostBytes) refuse_value(result);
  return result;
}

}  // namespace ark
