#include "launch_files.h"

#include <cstring>

#include "device/step_expected.h"

namespace ark::testing {
namespace {

// Slots: 0 token ids, 1 hidden, 2 other, 3 qkv and gate with up, 4 rope table, 5 blocks,
// 6 rows of the head, 7 logits. Kernels are named after their steps; nothing launches them.
constexpr const char* kPlan = R"({
  "version": 1, "chunk": 4, "output_rows": 2, "kv": "fp16",
  "slots": [16, 256, 256, 512, 128, 64, 128, 256, ["*", ["/", "capacity", 16], 8]],
  "weights": [WEIGHTS],
  "caches": [
    {"name": "key", "kind": "key", "bytes": ["*", "capacity", 16], "kv_heads": 1, "head_dim": 8},
    {"name": "value", "kind": "value", "bytes": ["*", "capacity", 16], "kv_heads": 1, "head_dim": 8},
    {"name": "fine", "kind": "compressed", "bytes": ["*", ["+", "capacity", 64], 16], "kv_heads": 1, "head_dim": 8},
    {"name": "coarse", "kind": "compressed", "bytes": ["*", ["*", ["/", ["+", ["/", "capacity", 4], 64], 64], 64], 16],
     "kv_heads": 1, "head_dim": 8}],
  "body": [
    STEP("rope_table", "short": {"weight": "short"}, "long": {"weight": "long"}, "y": VIEW(4, 8, 0, 8); "original_max": 64),
    STEP("embed", "ids": IDS(0, 1), "codes": MATRIX("f16", 16, 16, 16, 0, 20 "table.0", 12 "table.20"), "y": VIEW(1, 16, 0, 16); "scale": 2),
    STEP("rms_norm", "x": VIEW(1, 16, 0, 16), "weight": {"weight": "norm"}, "y": VIEW(2, 16, 0, 16); "epsilon": 1e-05),
    STEP("matmul", "x": VIEW(2, 16, 0, 16), "codes": MATRIX("offset", 16, 4, 8, 1, 32 "qkv" "qkv.scales"), "y": VIEW(3, 32, 0, 32);),
    STEP("rope", "x": VIEW(3, 32, 16, 8), "table": VIEW(4, 8, 0, 8); "head_dim": 8),
    STEP("cache_append", "k": VIEW(3, 32, 16, 8), "v": VIEW(3, 32, 24, 8), "key": {"cache": "key"}, "value": {"cache": "value"};),
    STEP("attention", "q": VIEW(3, 32, 0, 16), "key": {"cache": "key"}, "value": {"cache": "value"}, "y": VIEW(2, 16, 0, 16);
     "heads": 2, "scale": 0.35),
    STEP("compress_keys", "key": {"cache": "key"}, "compressed": {"cache": "fine"}; "window": 2, "stride": 1),
    STEP("compress_keys", "key": {"cache": "key"}, "compressed": {"cache": "coarse"}; "window": 8, "stride": 4),
    STEP("select_blocks", "q": VIEW(3, 32, 0, 16), "fine": {"cache": "fine"}, "coarse": {"cache": "coarse"}, "y": IDS(5, 4);
     "heads": 2, "scale": 0.35, "block_size": 4, "kernel_size": 2, "kernel_stride": 1, "init_blocks": 1,
     "local_blocks": 1, "topk": 2, "dense_len": 9, "generation": 1, "exact_lse": 0),
    STEP("block_sparse_attention", "q": VIEW(3, 32, 0, 16), "key": {"cache": "key"}, "value": {"cache": "value"},
     "blocks": IDS(5, 4), "y": VIEW(2, 16, 0, 16); "heads": 2, "scale": 0.35, "block_size": 4),
    STEP("matmul", "x": VIEW(2, 16, 0, 16), "codes": MATRIX("minimum", 16, 8, 16, 2, 16 "o" "o.scales"), "residual": VIEW(1, 16, 0, 16),
     "y": VIEW(1, 16, 0, 16); "scale": 0.5),
    STEP("swiglu", "gate": VIEW(3, 32, 0, 16), "up": VIEW(3, 32, 16, 16), "y": VIEW(2, 16, 0, 16);)
  ],
  "head": [
    STEP("matmul", "x": VIEW(6, 16, 0, 16), "codes": MATRIX("f16", 16, 16, 16, 0, 20 "table.0", 12 "table.20"), "y": VIEW(7, 32, 0, 32);)
  ],
  "token_ids": 0, "head_input": 1, "head_rows": 6, "head_columns": 16, "logits": 7
})";

struct Range {
  const char* name;
  int bytes;
  bool codes;
};
constexpr Range kRanges[] = {
    {"table.0", 640, false},    {"table.20", 384, false}, {"norm", 64, false},
    {"short", 16, false},       {"long", 16, false},      {"qkv", 256, true},
    {"qkv.scales", 256, false}, {"o", 256, true},         {"o.scales", 128, false}};

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts(1);
  for (char c : text) {
    if (c == at) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::string trimmed(const std::string& text) {
  size_t first = text.find_first_not_of(" \n");
  return first == std::string::npos ? ""
                                    : text.substr(first, text.find_last_not_of(" \n") - first + 1);
}

std::string matrix(const std::vector<std::string>& fields) {
  std::string parts;
  for (size_t i = 5; i < fields.size(); i++) {
    std::vector<std::string> part = split(trimmed(fields[i]), ' ');
    parts += (parts.empty() ? "" : ", ") + ("{\"outputs\": " + part[0]) +
             ", \"codes\": " + part[1] + (part.size() > 2 ? ", \"scales\": " + part[2] : "") + "}";
  }
  return "{\"matrix\": {\"values\": " + fields[0] + ", \"inputs\": " + fields[1] +
         ", \"bits\": " + fields[2] + ", \"group\": " + fields[3] +
         ", \"scale_words\": " + fields[4] + ", \"parts\": [" + parts + "]}}";
}

std::string view(const std::string& type, const std::vector<std::string>& fields) {
  return "{\"slot\": " + fields[0] + ", \"type\": \"" + type + "\", \"stride\": " + fields[1] +
         ", \"column\": " + fields[2] + ", \"columns\": " + fields[3] + "}";
}

// Writes out the shorthands of kPlan, innermost first.
std::string expand(std::string text) {
  int steps = 0;
  const std::pair<const char*, std::function<std::string(const std::string&)>> shorthands[] = {
      {"VIEW(", [](const std::string& inner) { return view("f32", split(inner, ',')); }},
      {"IDS(",
       [](const std::string& inner) {
         auto fields = split(inner, ',');
         return view("i32", {fields[0], fields[1], "0", fields[1]});
       }},
      {"MATRIX(", [](const std::string& inner) { return matrix(split(inner, ',')); }},
      {"STEP(", [&steps](const std::string& inner) {
         size_t name = inner.find(',');
         size_t attributes = inner.rfind(';');
         std::string kernel = inner.substr(0, name);
         return "{\"kernel\": " + kernel + ", \"stage\": \"\", \"operands\": {" +
                inner.substr(name + 1, attributes - name - 1) + "}, \"attributes\": {" +
                inner.substr(attributes + 1) + "}, \"launches\": [{\"kernel\": \"kernel_" +
                std::to_string(steps++) +
                "\", \"arguments\": [{\"slot\": 1}, {\"scalar\": \"tokens\"}], \"groups\": "
                "[\"tokens\", 1, 1], "
                "\"lanes\": 64, \"shared_bytes\": 0, \"least\": 1, \"most\": 1024}]}";
       }}};
  for (const auto& shorthand : shorthands) {
    const std::string start = shorthand.first;
    for (size_t at; (at = text.find(start)) != std::string::npos;) {
      size_t end = text.find(')', at);
      size_t from = at + start.size();
      text.replace(at, end + 1 - at, shorthand.second(text.substr(from, end - from)));
    }
  }
  return text;
}

}  // namespace

Files launch_files() {
  std::mt19937 random(1);
  std::string list, bytes;
  for (const Range& range : kRanges) {
    bytes.resize((bytes.size() + 63) / 64 * 64);
    list += (list.empty() ? "" : ", ") + ("{\"name\": \"" + std::string(range.name)) +
            "\", \"offset\": " + std::to_string(bytes.size()) +
            ", \"bytes\": " + std::to_string(range.bytes) + "}";
    for (int i = 0; i < range.bytes / 4; i++) {
      // As codes anything; as two halves, or as a float32, small numbers.
      uint32_t word = range.codes ? static_cast<uint32_t>(random()) : 0x3C003800 + random() % 1024;
      bytes.append(reinterpret_cast<const char*>(&word), 4);
    }
  }
  Files files;
  files.manifest = replaced(files.manifest, "\"cpu\"", "\"opencl\"");
  files.plan.clear();
  files.launches = expand(replaced(kPlan, "WEIGHTS", list));
  files.weights = bytes;
  return files;
}

HostRunner::HostRunner(const LaunchPlan& plan, const char* weights, int64_t capacity)
    : plan_(plan), weights_(weights) {
  LaunchScalars scalars;
  scalars.capacity = capacity;
  for (size_t i = 0; i < plan.slots.size(); i++) {
    memory_[{LaunchArgument::Kind::slot, i}].resize(
        static_cast<size_t>(plan.slots[i].evaluate(scalars)));
  }
  for (size_t i = 0; i < plan.caches.size(); i++) {
    memory_[{LaunchArgument::Kind::cache, i}].resize(
        static_cast<size_t>(plan.caches[i].bytes.evaluate(scalars)));
  }
}

void HostRunner::write(LaunchArgument::Kind kind, size_t index, const std::vector<char>& bytes) {
  std::copy(bytes.begin(), bytes.end(), memory(kind, index).begin());
}

void HostRunner::read(LaunchArgument::Kind kind, size_t index, std::vector<char>* bytes) {
  std::copy_n(memory(kind, index).begin(), bytes->size(), bytes->begin());
}

void HostRunner::run(const LaunchStep& step, const LaunchScalars& scalars) {
  std::mt19937 random(2);
  StepImages images = StepImages(plan_, step, scalars, weights_, &random).download(this);
  compute_expected(&images, images, &pool_);
  images.upload(this);
  if (after) after(step, this);
}

}  // namespace ark::testing
