#include "tuning.h"

#include <algorithm>

#include "error.h"
#include "json.h"

namespace ark {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 31;
constexpr const char* kNames[2] = {"int8", "fp32"};  // by ark_activations

std::vector<bool> read_uses(const JsonView& uses, size_t count) {
  if (uses.array_size() != count) uses.refuse("another number", "one for each of tokens");
  std::vector<bool> read;
  for (size_t i = 0; i < count; i++) {
    JsonView use = uses.item(i);
    bool compiled = use.string() == "compiled";
    if (!compiled && use.string() != "builtin") {
      use.refuse(quote(use.string()), "\"compiled\" or \"builtin\"");
    }
    read.push_back(compiled);
  }
  return read;
}

}  // namespace

bool Tuning::prefers_compiled(int32_t activations, size_t shape, int64_t count) const {
  auto above = std::upper_bound(tokens.begin(), tokens.end(), count);
  auto index = std::max<ptrdiff_t>(above - tokens.begin() - 1, 0);
  return compiled[activations][shape][static_cast<size_t>(index)];
}

Tuning parse_tuning(const char* text, size_t size, const CompiledPlan& plan) {
  Json json = Json::parse("tuning.json", text, size, size_t{16} << 20);
  JsonView root(json, "tuning.json");
  if (root.at("version").integer(0, 1 << 30) != 1)
    root.at("version").refuse("another version", "1");
  Tuning tuning;
  tuning.bundle = root.at("bundle").string();
  tuning.cpu = root.at("cpu").string();
  JsonView tokens = root.at("tokens");
  for (size_t i = 0; i < tokens.array_size(); i++) {
    tuning.tokens.push_back(tokens.item(i).integer(1, kMostTokens));
    if (i > 0 && tuning.tokens[i] <= tuning.tokens[i - 1]) {
      tokens.item(i).refuse("no more than the one before", "ascending counts");
    }
  }
  if (tuning.tokens.empty()) tokens.refuse("no counts", "at least one");
  JsonView shapes = root.at("shapes");
  if (shapes.array_size() != plan.shapes.size()) {
    shapes.refuse("another number",
                  "the " + std::to_string(plan.shapes.size()) + " of kernels.json");
  }
  for (size_t i = 0; i < plan.shapes.size(); i++) {
    JsonView entry = shapes.item(i);
    if (entry.at("shape").string() != plan.shapes[i]) {
      entry.at("shape").refuse(quote(entry.at("shape").string()), quote(plan.shapes[i]));
    }
    for (int a = 0; a < 2; a++) {
      JsonView uses = entry.at("use").at(kNames[a]);
      tuning.compiled[a].push_back(read_uses(uses, tuning.tokens.size()));
    }
  }
  return tuning;
}

}  // namespace ark
