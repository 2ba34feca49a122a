#include "device/launch_plan.h"

#include <algorithm>

#include "error.h"
#include "json.h"

namespace ark {
namespace {

constexpr int64_t kMostBytes = int64_t{1} << 50;
constexpr int64_t kMostColumns = int64_t{1} << 31;
constexpr int64_t kMostSharedBytes = 1 << 20;
constexpr int64_t kImagePlace = 16;

class Reader {
 public:
  Reader(const JsonView& root, const PlanLimits& limits) : root_(root), limits_(limits) {}

  LaunchPlan read() {
    if (root_.at("version").integer(0, 1 << 30) != 1) {
      root_.at("version").refuse("another version", "1");
    }
    plan_.chunk = root_.at("chunk").integer(1, 65536);
    if (plan_.chunk != limits_.chunk) root_.at("chunk").refuse("not the manifest's", "the same");
    plan_.output_rows = root_.at("output_rows").integer(1, plan_.chunk);
    read_kv();
    if (root_.has("code")) read_code(root_.at("code"));
    if (root_.has("extensions")) {
      JsonView names = root_.at("extensions");
      for (size_t i = 0; i < names.array_size(); i++) {
        plan_.extensions.push_back(names.item(i).string());
      }
    }
    JsonView slots = root_.at("slots");
    for (size_t i = 0; i < slots.array_size(); i++) plan_.slots.push_back(read_size(slots.item(i)));
    JsonView weights = root_.at("weights");
    for (size_t i = 0; i < weights.array_size(); i++) add_weight(weights.item(i));
    JsonView caches = root_.at("caches");
    for (size_t i = 0; i < caches.array_size(); i++) add_cache(caches.item(i));
    add_steps("body", &plan_.body);
    add_steps("head", &plan_.head);
    plan_.head_columns = root_.at("head_columns").integer(1, kMostColumns);
    plan_.token_ids = slot_for("token_ids", plan_.chunk, 1);
    plan_.head_input = slot_for("head_input", plan_.chunk, plan_.head_columns);
    plan_.head_rows = slot_for("head_rows", plan_.output_rows, plan_.head_columns);
    plan_.logits = slot_for("logits", plan_.output_rows, limits_.vocab_size);
    return std::move(plan_);
  }

 private:
  void read_kv() {
    const std::string& kv = root_.at("kv").string();
    if (kv != "fp16" && kv != "fp32") root_.at("kv").refuse(quote(kv), "\"fp16\" or \"fp32\"");
    plan_.half_caches = kv == "fp16";
  }

  void read_code(const JsonView& entry) {
    LaunchCode& code = plan_.code;
    code.present = true;
    code.architecture = entry.at("architecture").string();
    code.capability = static_cast<int>(entry.at("capability").integer(10, 999));
    const std::string& form = entry.at("form").string();
    if (form != "ptx" && form != "cubin") {
      entry.at("form").refuse(quote(form), "\"ptx\" or \"cubin\"");
    }
    code.is_ptx = form == "ptx";
    code.toolkit = static_cast<int>(entry.at("toolkit").integer(1000, 1000000));
    JsonView modules = entry.at("modules");
    for (size_t i = 0; i < modules.array_size(); i++) {
      JsonView module = modules.item(i);
      code.modules.push_back({module.at("name").string(),
                              module.at("offset").integer(0, kMostBytes),
                              module.at("bytes").integer(1, kMostBytes)});
    }
    if (code.modules.empty()) modules.refuse("no modules", "at least one");
  }

  static std::string new_name(const JsonView& entry, LaunchIndex* index) {
    const std::string& name = entry.at("name").string();
    if (!index->emplace(name, index->size()).second) {
      entry.at("name").refuse(quote(name) + " a second time", "each name once");
    }
    return name;
  }

  void add_weight(const JsonView& entry) {
    LaunchWeight weight{new_name(entry, &weights_), entry.at("offset").integer(0, kMostBytes),
                        entry.at("bytes").integer(1, kMostBytes)};
    if (weight.offset % 64 != 0 || weight.offset + weight.bytes > limits_.weights_bytes) {
      entry.refuse("a range that leaves weights.bin or starts off a multiple of 64", "one inside");
    }
    plan_.weights.push_back(std::move(weight));
  }

  void add_cache(const JsonView& entry) {
    LaunchCache cache{new_name(entry, &caches_), CacheKind::key, read_size(entry.at("bytes")),
                      entry.at("kv_heads").integer(1, 65536),
                      entry.at("head_dim").integer(1, 65536)};
    const std::string& kind = entry.at("kind").string();
    if (kind == "value") {
      cache.kind = CacheKind::value;
    } else if (kind == "compressed") {
      cache.kind = CacheKind::compressed;
    } else if (kind != "key") {
      entry.at("kind").refuse(quote(kind), "\"key\", \"value\" or \"compressed\"");
    }
    plan_.caches.push_back(std::move(cache));
  }

  size_t read_slot(const JsonView& view) const {
    return static_cast<size_t>(view.integer(0, static_cast<int64_t>(plan_.slots.size()) - 1));
  }

  // A slot of a constant size that holds rows of 4-byte columns.
  size_t slot_for(const char* key, int64_t rows, int64_t columns) const {
    JsonView view = root_.at(key);
    size_t slot = read_slot(view);
    const LaunchSize& size = plan_.slots[slot];
    if (size.kind != LaunchSize::Kind::number || size.number < rows * columns * 4) {
      view.refuse("a slot that is too small", std::to_string(rows * columns * 4) + " bytes");
    }
    return slot;
  }

  static size_t look_up(const JsonView& view, const LaunchIndex& index) {
    auto found = index.find(view.string());
    if (found == index.end()) view.refuse(quote(view.string()), "a name from the list");
    return found->second;
  }

  LaunchArgument read_argument(const JsonView& view) const {
    using Argument = LaunchArgument::Kind;
    if (view.has("scalar")) return {Argument::scalar, 0, read_scalar(view.at("scalar"))};
    if (view.has("weight")) {
      const size_t weight = look_up(view.at("weight"), weights_);
      const bool image = view.has("as");
      if (image && view.at("as").string() != "image") {
        view.at("as").refuse(quote(view.at("as").string()), "\"image\"");
      }
      if (image && plan_.weights[weight].bytes % kImagePlace != 0) {
        view.refuse("an image of " + std::to_string(plan_.weights[weight].bytes) + " bytes",
                    "whole places of 16");
      }
      return {Argument::weight, weight, {}, image};
    }
    if (view.has("cache")) return {Argument::cache, look_up(view.at("cache"), caches_), {}};
    return {Argument::slot, read_slot(view.at("slot")), {}};
  }

  Launch read_launch(const JsonView& entry) const {
    Launch launch;
    launch.kernel = entry.at("kernel").string();
    JsonView arguments = entry.at("arguments");
    for (size_t i = 0; i < arguments.array_size(); i++) {
      launch.arguments.push_back(read_argument(arguments.item(i)));
    }
    JsonView groups = entry.at("groups");
    if (groups.array_size() != 3) groups.refuse("not three sizes", "groups on three axes");
    for (size_t i = 0; i < 3; i++) launch.groups[i] = read_size(groups.item(i));
    launch.lanes = entry.at("lanes").integer(1, 65536);
    launch.shared_bytes = entry.at("shared_bytes").integer(0, kMostBytes);
    launch.least = entry.at("least").integer(1, kMostColumns);
    launch.most = entry.at("most").integer(1, kMostColumns);
    const auto last = static_cast<int64_t>(plan_.code.modules.size()) - 1;
    if (entry.has("module")) {
      launch.module =
          static_cast<size_t>(entry.at("module").integer(0, std::max<int64_t>(last, 0)));
    }
    if (entry.has("dynamic_bytes")) {
      launch.dynamic_bytes = entry.at("dynamic_bytes").integer(0, kMostSharedBytes);
    }
    return launch;
  }

  LaunchOutput read_output(const JsonView& entry) const {
    LaunchOutput output;
    output.present = true;
    output.slot = read_slot(entry.at("slot"));
    output.is_float = entry.at("type").string() == "f32";
    output.stride = entry.at("stride").integer(1, kMostColumns);
    output.columns = entry.at("columns").integer(1, output.stride);
    output.column = entry.at("column").integer(0, output.stride - output.columns);
    const LaunchSize& size = plan_.slots[output.slot];
    int64_t rows = size.kind == LaunchSize::Kind::number ? size.number / (4 * output.stride) : 0;
    if (rows < 1) entry.refuse("a slot that holds no row of it", "the slot of its buffer");
    return output;
  }

  void add_steps(const char* key, std::vector<LaunchStep>* list) {
    JsonView steps = root_.at(key);
    for (size_t i = 0; i < steps.array_size(); i++) {
      JsonView entry = steps.item(i);
      LaunchStep step;
      step.kernel = entry.at("kernel").string();
      step.stage = entry.at("stage").string();
      step.place = entry.place() + " (" + quote(step.kernel) + ")";
      if (entry.has("output")) step.output = read_output(entry.at("output"));
      if (entry.has("keep_layer")) {
        if (!step.output.present || step.output.is_float ||
            step.output.columns % limits_.kv_heads != 0) {
          entry.refuse("an output that holds no blocks", "int32 with equal parts per head");
        }
        step.keep_layer =
            static_cast<int32_t>(entry.at("keep_layer").integer(0, limits_.layers - 1));
        step.block_size = entry.at("block_size").integer(1, 64);
      }
      if (!plan_.code.present) {  // compiled code is not tested by itself
        step.operands = read_operands(entry.at("operands"), plan_, weights_, caches_);
        step.attributes = read_attributes(entry.at("attributes"));
      }
      JsonView launches = entry.at("launches");
      for (size_t l = 0; l < launches.array_size(); l++) {
        step.launches.push_back(read_launch(launches.item(l)));
      }
      list->push_back(std::move(step));
    }
  }

  const JsonView& root_;
  const PlanLimits& limits_;
  LaunchPlan plan_;
  LaunchIndex weights_, caches_;
};

}  // namespace

LaunchSize read_launch_size(const JsonView& view) { return read_size(view); }

int64_t LaunchScalars::* read_launch_scalar(const JsonView& view) { return read_scalar(view); }

bool LaunchPlan::half_products() const {
  return std::find(extensions.begin(), extensions.end(), "cl_khr_fp16") != extensions.end();
}

void check_modules(const LaunchCode& code, int64_t bytes) {
  for (const LaunchModule& module : code.modules) {
    // Code is read to the end that it states itself; PTX ends with a zero.
    if (module.offset % 64 == 0 && module.offset + module.bytes <= bytes) continue;
    fail(ARK_INVALID_BUNDLE,
         "launches.json: the module " + quote(module.name) +
             " leaves modules.bin or starts off a multiple of 64",
         "a range inside its " + std::to_string(bytes) + " bytes", "compile the bundle again");
  }
}

LaunchPlan parse_launch_plan(const char* text, size_t size, const PlanLimits& limits) {
  Json json = Json::parse("launches.json", text, size);
  JsonView root(json, "launches.json");
  return Reader(root, limits).read();
}

}  // namespace ark
