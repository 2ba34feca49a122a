#include "plan.h"

#include <set>
#include <unordered_map>

#include "error.h"
#include "json.h"

namespace ark {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 31;
constexpr int64_t kMostBytes = int64_t{1} << 50;
constexpr int64_t kAlignment = 64;
constexpr int64_t kPanel = 16;

struct DTypeName {
  const char* name;
  DType dtype;
  int64_t bits;
};
constexpr DTypeName kDTypes[] = {
    {"f32", DType::f32, 32}, {"f16", DType::f16, 16}, {"bf16", DType::bf16, 16},
    {"i32", DType::i32, 32}, {"u8", DType::u8, 8},    {"i8", DType::i8, 8},
    {"u4", DType::u4, 4},    {"u2", DType::u2, 2},
};

class PlanReader {
 public:
  PlanReader(const JsonView& root, const PlanLimits& limits) : root_(root), limits_(limits) {}

  Plan read() {
    if (root_.at("version").integer(0, 1 << 30) != 1) {
      root_.at("version").refuse("another plan version", "1");
    }
    plan_.chunk = root_.at("chunk").integer(1, 65536);
    if (plan_.chunk != limits_.chunk) root_.at("chunk").refuse("not the manifest's", "the same");
    plan_.output_rows =
        root_.has("output_rows") ? root_.at("output_rows").integer(1, plan_.chunk) : 1;
    plan_.arena_bytes = root_.at("arena_bytes").integer(0, kMostBytes);
    JsonView buffers = root_.at("buffers");
    for (size_t i = 0; i < buffers.array_size(); i++) add_buffer(buffers.item(i));
    JsonView weights = root_.at("weights");
    for (size_t i = 0; i < weights.array_size(); i++) add_weight(weights.item(i));
    JsonView caches = root_.at("caches");
    for (size_t i = 0; i < caches.array_size(); i++) add_cache(caches.item(i));
    add_steps("body", &plan_.body);
    add_steps("head", &plan_.head);
    resolve_named();
    return std::move(plan_);
  }

 private:
  using Index = std::unordered_map<std::string, size_t>;

  // Registers a name in its table and gives it back.
  std::string new_name(const JsonView& entry, Index* index) {
    const std::string& name = entry.at("name").string();
    if (!index->emplace(name, index->size()).second) {
      entry.at("name").refuse(quote(name) + " a second time", "each name once");
    }
    return name;
  }

  static DType read_dtype(const JsonView& view) {
    for (const DTypeName& known : kDTypes) {
      if (view.string() == known.name) return known.dtype;
    }
    view.refuse(quote(view.string()), "f32, f16, bf16, i32, u8, i8, u4 or u2");
  }

  // Raises when [offset, offset + bytes) leaves [0, size) or starts off a multiple of 64.
  static void check_range(const JsonView& entry, int64_t offset, int64_t bytes, int64_t size,
                          const char* where) {
    int64_t end = 0;
    if (offset % kAlignment != 0) {
      entry.refuse("offset " + std::to_string(offset), "a multiple of 64");
    }
    if (!checked_add(offset, bytes, &end) || end > size) {
      entry.refuse(std::to_string(bytes) + " bytes at offset " + std::to_string(offset),
                   "a range inside the " + std::to_string(size) + " bytes of " + where);
    }
  }

  void add_buffer(const JsonView& entry) {
    PlanBuffer buffer;
    buffer.name = new_name(entry, &buffers_);
    buffer.dtype = read_dtype(entry.at("dtype"));
    if (dtype_bits(buffer.dtype) % 8 != 0) {
      entry.at("dtype").refuse("a " + entry.at("dtype").string() + " buffer", "a whole-byte type");
    }
    JsonView rows = entry.at("rows");
    if (rows.is(Json::Type::number)) {
      buffer.rows = Rows::fixed;
      buffer.max_rows = rows.integer(1, kMostElements);
    } else if (rows.string() == "tokens") {
      buffer.rows = Rows::tokens;
      buffer.max_rows = plan_.chunk;
    } else if (rows.string() == "outputs") {
      buffer.rows = Rows::outputs;
      buffer.max_rows = plan_.output_rows;
    } else {
      rows.refuse(quote(rows.string()), "\"tokens\", \"outputs\" or a number");
    }
    buffer.columns = entry.at("columns").integer(1, kMostElements);
    buffer.offset = entry.at("offset").integer(0, kMostBytes);
    if (!checked_multiply(buffer.max_rows * dtype_bits(buffer.dtype) / 8, buffer.columns,
                          &buffer.bytes)) {
      entry.refuse("a size beyond 2^63 bytes", "a smaller buffer");
    }
    check_range(entry, buffer.offset, buffer.bytes, plan_.arena_bytes, "the arena");
    plan_.buffers.push_back(std::move(buffer));
  }

  void add_weight(const JsonView& entry) {
    PlanWeight weight;
    weight.name = new_name(entry, &weights_);
    weight.dtype = read_dtype(entry.at("dtype"));
    JsonView shape = entry.at("shape");
    weight.rank = static_cast<int32_t>(shape.array_size());
    if (weight.rank != 1 && weight.rank != 2) shape.refuse("another rank", "1 or 2 dimensions");
    weight.shape[0] = shape.item(0).integer(1, kMostElements);
    weight.shape[1] = weight.rank == 2 ? shape.item(1).integer(1, kMostElements) : 1;
    int64_t rows = weight.rank == 2 ? round_up(weight.shape[0], kPanel) : weight.shape[0];
    int64_t bits = 0;
    if (!checked_multiply(rows * dtype_bits(weight.dtype), weight.shape[1], &bits)) {
      shape.refuse("a product beyond 2^63 bits", "a smaller shape");
    }
    if (bits % 8 != 0) shape.refuse("part of a byte", "codes that fill whole bytes");
    weight.offset = entry.at("offset").integer(0, kMostBytes);
    weight.bytes = entry.at("bytes").integer(0, kMostBytes);
    if (weight.bytes < bits / 8) {
      entry.at("bytes").refuse(std::to_string(weight.bytes),
                               "at least " + std::to_string(bits / 8) + " for this shape");
    }
    check_range(entry, weight.offset, weight.bytes, limits_.weights_bytes, "weights.bin");
    plan_.weights.push_back(std::move(weight));
  }

  void add_cache(const JsonView& entry) {
    PlanCache cache{new_name(entry, &caches_), CacheKind::key, 0, 0, 0, 0};
    const std::string& kind = entry.at("kind").string();
    if (kind == "compressed") {
      cache.kind = CacheKind::compressed;
      cache.window = entry.at("window").integer(1, 1 << 20);
      cache.stride = entry.at("stride").integer(1, cache.window);
    } else if (kind == "value") {
      cache.kind = CacheKind::value;
    } else if (kind != "key") {
      entry.at("kind").refuse(quote(kind), "\"key\", \"value\" or \"compressed\"");
    }
    cache.kv_heads = entry.at("kv_heads").integer(1, 65536);
    if (cache.kv_heads != limits_.kv_heads) {
      entry.at("kv_heads")
          .refuse(std::to_string(cache.kv_heads),
                  std::to_string(limits_.kv_heads) + " like the model");
    }
    cache.head_dim = entry.at("head_dim").integer(1, 65536);
    plan_.caches.push_back(std::move(cache));
  }

  size_t look_up(const JsonView& view, const Index& index, const char* what) {
    auto found = index.find(view.string());
    if (found == index.end()) {
      view.refuse(std::string("no ") + what + " " + quote(view.string()), "the name of one");
    }
    return found->second;
  }

  PlanOperand read_operand(const JsonView& view, const std::string& name, Rows wrong_rows) {
    using Kind = PlanOperand::Kind;
    if (view.has("weight")) {
      return {name, Kind::weight, look_up(view.at("weight"), weights_, "weight"), 0, 0};
    }
    if (view.has("cache")) {
      if (wrong_rows == Rows::tokens) view.refuse("a cache in the head", "caches in the body only");
      return {name, Kind::cache, look_up(view.at("cache"), caches_, "cache"), 0, 0};
    }
    size_t index = look_up(view.at("buffer"), buffers_, "buffer");
    const PlanBuffer& buffer = plan_.buffers[index];
    if (buffer.rows == wrong_rows) {
      view.refuse("the buffer " + quote(buffer.name) + " has the other list's rows",
                  wrong_rows == Rows::tokens ? "rows \"outputs\" in the head"
                                             : "rows \"tokens\" in the body");
    }
    int64_t column = view.has("column") ? view.at("column").integer(0, kMostElements) : 0;
    int64_t columns = view.has("columns") ? view.at("columns").integer(1, kMostElements)
                                          : buffer.columns - column;
    if (columns < 1 || column + columns > buffer.columns) {
      view.refuse(
          "columns " + std::to_string(column) + " to " + std::to_string(column + columns),
          "a range inside the " + std::to_string(buffer.columns) + " of " + quote(buffer.name));
    }
    return {name, Kind::buffer, index, column, columns};
  }

  void read_keep(const JsonView& keep, const std::vector<PlanStep>* list, PlanStep* step) {
    const std::string& name = keep.at("operand").string();
    for (size_t i = 0; i < step->operands.size(); i++) {
      if (step->operands[i].name == name) step->keep_operand = static_cast<int>(i);
    }
    if (step->keep_operand < 0) keep.refuse("no operand " + quote(name), "one of the step's");
    const PlanOperand& operand = step->operands[static_cast<size_t>(step->keep_operand)];
    bool right = list == &plan_.body && operand.kind == PlanOperand::Kind::buffer;
    if (right) {
      const PlanBuffer& buffer = plan_.buffers[operand.index];
      right = buffer.dtype == DType::i32 && buffer.rows == Rows::tokens &&
              operand.columns % limits_.kv_heads == 0;
    }
    if (!right) {
      keep.refuse("the operand " + quote(name),
                  "an i32 buffer with a row per token, of equal parts per key-value head");
    }
    step->keep_layer = static_cast<int32_t>(keep.at("layer").integer(0, limits_.layers - 1));
  }

  void add_steps(const char* key, std::vector<PlanStep>* list) {
    JsonView steps = root_.at(key);
    Rows wrong_rows = list == &plan_.body ? Rows::outputs : Rows::tokens;
    for (size_t i = 0; i < steps.array_size(); i++) {
      JsonView entry = steps.item(i);
      PlanStep step;
      step.kernel = entry.at("kernel").string();
      step.place = entry.place() + " (" + quote(step.kernel) + ")";
      if (entry.has("stage")) step.stage = entry.at("stage").string();
      JsonView operands = entry.at("operands");
      for (size_t o = 0; o < operands.object_size(); o++) {
        step.operands.push_back(read_operand(operands.member(o), operands.key(o), wrong_rows));
      }
      if (entry.has("attributes")) {
        JsonView attributes = entry.at("attributes");
        for (size_t a = 0; a < attributes.object_size(); a++) {
          step.attributes.emplace_back(attributes.key(a), attributes.member(a).real());
        }
      }
      if (entry.has("keep")) read_keep(entry.at("keep"), list, &step);
      list->push_back(std::move(step));
    }
  }

  size_t require(const std::string& name, DType dtype, Rows rows, int64_t columns) {
    auto found = buffers_.find(name);
    if (found == buffers_.end()) {
      root_.at("buffers").refuse("no buffer " + quote(name), "one of that name");
    }
    const PlanBuffer& buffer = plan_.buffers[found->second];
    if (buffer.dtype != dtype || buffer.rows != rows || buffer.columns != columns) {
      root_.at("buffers").refuse(
          "the buffer " + quote(name) + " has another type, kind of rows or width",
          std::string(dtype_name(dtype)) + " [" + (rows == Rows::tokens ? "tokens" : "outputs") +
              ", " + std::to_string(columns) + "]");
    }
    return found->second;
  }

  void resolve_named() {
    plan_.token_ids = require("token_ids", DType::i32, Rows::tokens, 1);
    plan_.logits =
        require(root_.at("logits").string(), DType::f32, Rows::outputs, limits_.vocab_size);
    auto input = buffers_.find("head_input");
    int64_t columns = input == buffers_.end() ? 0 : plan_.buffers[input->second].columns;
    plan_.head_input = require("head_input", DType::f32, Rows::tokens, columns);
    plan_.head_rows = require("head_rows", DType::f32, Rows::outputs, columns);
    const PlanBuffer& from = plan_.buffers[plan_.head_input];
    for (size_t i = 0; i < plan_.buffers.size(); i++) {
      // The head runs once per group of rows, so it must leave the rows that it starts from alone.
      const PlanBuffer& other = plan_.buffers[i];
      if (other.rows == Rows::outputs && other.offset < from.offset + from.bytes &&
          from.offset < other.offset + other.bytes) {
        root_.at("buffers").refuse(quote(other.name) + " shares bytes with 'head_input'",
                                   "a place of its own");
      }
    }
  }

  const JsonView& root_;
  const PlanLimits& limits_;
  Plan plan_{};
  Index buffers_, weights_, caches_;
};

}  // namespace

int64_t dtype_bits(DType dtype) {
  for (const DTypeName& known : kDTypes) {
    if (known.dtype == dtype) return known.bits;
  }
  return 0;
}

const char* dtype_name(DType dtype) {
  for (const DTypeName& known : kDTypes) {
    if (known.dtype == dtype) return known.name;
  }
  return "unknown";
}

const PlanOperand* PlanStep::operand(const std::string& wanted) const {
  for (const PlanOperand& entry : operands) {
    if (entry.name == wanted) return &entry;
  }
  return nullptr;
}

double PlanStep::attribute(const std::string& wanted, double otherwise) const {
  for (const auto& entry : attributes) {
    if (entry.first == wanted) return entry.second;
  }
  return otherwise;
}

Plan parse_plan(const char* text, size_t size, const PlanLimits& limits) {
  Json json = Json::parse("plan.json", text, size);
  return read_plan(JsonView(json, "plan.json"), limits);
}

Plan read_plan(const JsonView& root, const PlanLimits& limits) {
  Plan plan = PlanReader(root, limits).read();
  check_dataflow(plan);
  return plan;
}

}  // namespace ark
