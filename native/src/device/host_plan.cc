#include "device/host_plan.h"

#include <utility>

#include "error.h"
#include "json.h"

namespace ark {
namespace {

constexpr int64_t kMostBytes = int64_t{1} << 50;
constexpr int64_t kAlignment = 64;
constexpr int64_t kPanel = 16;

class HostReader {
 public:
  HostReader(const JsonView& root, const LaunchPlan& launches) : root_(root), launches_(launches) {}

  HostPlan read(PlanLimits limits) {
    host_.bytes = root_.at("weights_bytes").integer(0, kMostBytes);
    limits.weights_bytes = host_.bytes;
    host_.plan = read_plan(root_, limits);
    if (host_.plan.output_rows != launches_.output_rows) {
      root_.at("output_rows").refuse("not those of launches.json", "the same");
    }
    check_places();
    for (size_t i = 0; i < host_.plan.weights.size(); i++) to_[host_.plan.weights[i].name] = i;
    for (size_t i = 0; i < launches_.weights.size(); i++) from_[launches_.weights[i].name] = i;
    made_.resize(host_.plan.weights.size());
    JsonView sources = root_.at("sources");
    for (size_t i = 0; i < sources.array_size(); i++) add_source(sources.item(i));
    for (size_t i = 0; i < made_.size(); i++) {
      if (made_[i]) continue;
      sources.refuse("nothing for " + quote(host_.plan.weights[i].name), "a source of each weight");
    }
    return std::move(host_);
  }

 private:
  // One after the other without gaps, so that the memory is no larger than what fills it.
  void check_places() const {
    int64_t end = 0;
    for (const PlanWeight& weight : host_.plan.weights) {
      int64_t rows = weight.rank == 2 ? round_up(weight.shape[0], kPanel) : weight.shape[0];
      int64_t bytes = rows * weight.shape[1] * dtype_bits(weight.dtype) / 8;
      if (weight.offset != round_up(end, kAlignment) || weight.bytes != bytes) {
        root_.at("weights").refuse(
            quote(weight.name) + " at offset " + std::to_string(weight.offset) + " with " +
                std::to_string(weight.bytes) + " bytes",
            std::to_string(bytes) + " at " + std::to_string(round_up(end, kAlignment)));
      }
      end = weight.offset + weight.bytes;
    }
    if (host_.bytes != end) {
      root_.at("weights_bytes").refuse(std::to_string(host_.bytes), std::to_string(end));
    }
  }

  static size_t look_up(const JsonView& view, const LaunchIndex& index) {
    auto found = index.find(view.string());
    if (found == index.end()) view.refuse(quote(view.string()), "the name of a weight");
    return found->second;
  }

  // A weight of the CPU's plan that has this type and shape, and no other source.
  size_t take(const JsonView& view, DType dtype, int32_t rank, int64_t rows, int64_t columns) {
    size_t index = look_up(view, to_);
    const PlanWeight& weight = host_.plan.weights[index];
    if (made_[index]) view.refuse(quote(weight.name) + " a second time", "each weight once");
    if (weight.dtype != dtype || weight.rank != rank || weight.shape[0] != rows ||
        weight.shape[1] != columns) {
      view.refuse(quote(weight.name) + " has another type or shape than its source",
                  std::string(dtype_name(dtype)) + " [" + std::to_string(rows) + ", " +
                      std::to_string(columns) + "]");
    }
    made_[index] = true;
    return index;
  }

  void add_source(const JsonView& entry) {
    if (entry.has("matrix")) return add_matrix(entry);
    size_t from = look_up(entry.at("vector"), from_);
    int64_t count = launches_.weights[from].bytes / 4;
    if (count * 4 != launches_.weights[from].bytes) entry.refuse("part of a number", "float32");
    host_.vectors.push_back({take(entry.at("vector"), DType::f32, 1, count, 1), from});
  }

  static DType dtype_of(const LaunchMatrix& matrix) {
    switch (matrix.values) {
      case LaunchMatrix::Values::f32:
        return DType::f32;
      case LaunchMatrix::Values::f16:
        return DType::f16;
      case LaunchMatrix::Values::bf16:
        return DType::bf16;
      default:
        return matrix.bits == 2 ? DType::u2 : matrix.bits == 4 ? DType::u4 : DType::i8;
    }
  }

  void add_matrix(const JsonView& entry) {
    HostMatrix matrix;
    matrix.matrix = read_matrix(entry.at("matrix"), launches_, from_);
    const LaunchMatrix& device = matrix.matrix;
    const int64_t outputs = device.outputs();
    DType dtype = dtype_of(device);
    matrix.codes = take(entry.at("codes"), dtype, 2, outputs, device.inputs);
    if (device.has_scales()) {
      const int64_t groups = device.inputs / device.group;
      const DType floats = device.scale_words == 1 ? DType::f16 : DType::f32;
      matrix.scales = take(entry.at("scales"), floats, 2, outputs, groups);
      const bool minimum = device.values == LaunchMatrix::Values::minimum;
      if (minimum || entry.has("offsets")) {
        DType zeros = dtype == DType::u4 ? DType::u8 : DType::i8;
        matrix.offsets = take(entry.at("offsets"), minimum ? floats : zeros, 2, outputs, groups);
      }
    }
    host_.matrices.push_back(std::move(matrix));
  }

  const JsonView& root_;
  const LaunchPlan& launches_;
  HostPlan host_;
  LaunchIndex to_, from_;
  std::vector<bool> made_;
};

}  // namespace

HostPlan parse_host_plan(const char* text, size_t size, const PlanLimits& limits,
                         const LaunchPlan& launches) {
  Json json = Json::parse("plan.cpu.json", text, size);
  JsonView root(json, "plan.cpu.json");
  return HostReader(root, launches).read(limits);
}

}  // namespace ark
