#include "compiled_plan.h"

#include "error.h"
#include "isa.h"
#include "json.h"

namespace ark {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 31;
constexpr int64_t kMostWorkspace = int64_t{1} << 30;

class Reader {
 public:
  Reader(const JsonView& root, const Plan& plan) : root_(root), from_(plan) {}

  CompiledPlan read() {
    if (root_.at("version").integer(0, 1 << 30) != 1) {
      root_.at("version").refuse("another version", "1");
    }
    if (!parse_isa(root_.at("isa").string(), &plan_.isa)) {
      root_.at("isa").refuse(quote(root_.at("isa").string()), "the name of a kernel set");
    }
    const std::string& kv = root_.at("kv").string();
    if (kv != "fp16" && kv != "fp32") root_.at("kv").refuse(quote(kv), "\"fp16\" or \"fp32\"");
    plan_.half_caches = kv == "fp16";
    plan_.workspace = root_.at("workspace").integer(0, kMostWorkspace);
    JsonView scratch = root_.at("scratch");
    for (size_t i = 0; i < scratch.array_size(); i++) {
      plan_.scratch.push_back(read_launch_size(scratch.item(i)));
    }
    JsonView shapes = root_.at("shapes");
    for (size_t i = 0; i < shapes.array_size(); i++) {
      plan_.shapes.push_back(shapes.item(i).string());
    }
    add_steps("body", from_.body, &plan_.body);
    add_steps("head", from_.head, &plan_.head);
    return std::move(plan_);
  }

 private:
  void add_steps(const char* key, const std::vector<PlanStep>& from,
                 std::vector<CompiledStep>* list) {
    JsonView steps = root_.at(key);
    if (steps.array_size() != from.size()) {
      steps.refuse(std::to_string(steps.array_size()) + " steps",
                   "the " + std::to_string(from.size()) + " of plan.json");
    }
    for (size_t i = 0; i < from.size(); i++) {
      JsonView entry = steps.item(i);
      CompiledStep step;
      JsonView launches = entry.at("launches");
      for (size_t l = 0; l < launches.array_size(); l++) {
        step.launches.push_back(read_launch(launches.item(l), from[i]));
      }
      if (!step.launches.empty()) {
        step.shape = static_cast<size_t>(
            entry.at("shape").integer(0, static_cast<int64_t>(plan_.shapes.size()) - 1));
      }
      list->push_back(std::move(step));
    }
  }

  CompiledLaunch read_launch(const JsonView& entry, const PlanStep& step) const {
    CompiledLaunch launch{entry.at("function").string(),
                          entry.at("least").integer(1, kMostTokens),
                          entry.at("most").integer(1, kMostTokens),
                          read_launch_size(entry.at("groups")),
                          {}};
    JsonView arguments = entry.at("arguments");
    for (size_t i = 0; i < arguments.array_size(); i++) {
      launch.arguments.push_back(read_argument(arguments.item(i), step));
    }
    return launch;
  }

  CompiledArgument read_argument(const JsonView& view, const PlanStep& step) const {
    using Kind = CompiledArgument::Kind;
    if (view.is(Json::Type::null)) return {Kind::absent, 0, nullptr};
    if (view.has("scalar")) return {Kind::scalar, 0, read_launch_scalar(view.at("scalar"))};
    if (view.has("scratch")) {
      int64_t count = static_cast<int64_t>(plan_.scratch.size());
      return {Kind::scratch, static_cast<size_t>(view.at("scratch").integer(0, count - 1)),
              nullptr};
    }
    JsonView name = view.at("operand");
    const PlanOperand* operand = step.operand(name.string());
    if (!operand) name.refuse("no operand " + quote(name.string()), "one of its step in plan.json");
    return {Kind::operand, static_cast<size_t>(operand - step.operands.data()), nullptr};
  }

  const JsonView& root_;
  const Plan& from_;
  CompiledPlan plan_;
};

}  // namespace

CompiledPlan parse_compiled_plan(const char* text, size_t size, const Plan& plan) {
  Json json = Json::parse("kernels.json", text, size);
  JsonView root(json, "kernels.json");
  return Reader(root, plan).read();
}

}  // namespace ark
