#include <cstring>
#include <random>

#include "error.h"
#include "fixture.h"

namespace ark::testing {
namespace {

// Text of plan.json and the weights beside it, while they are being put together.
struct Builder {
  std::string buffers, weights, bytes;
  int64_t arena = 0;
  std::mt19937 random{1};

  static void add(std::string* list, const std::string& entry) {
    *list += (list->empty() ? "" : ",\n    ") + entry;
  }

  void buffer(const std::string& name, const char* dtype, const char* rows, int columns) {
    add(&buffers, "{\"name\": \"" + name + "\", \"dtype\": \"" + dtype + "\", \"rows\": \"" + rows +
                      "\", \"columns\": " + std::to_string(columns) +
                      ", \"offset\": " + std::to_string(arena) + "}");
    arena += round_up(4 * columns * 4, 64);  // chunk 4
  }

  void weight(const std::string& name, const char* dtype, const std::string& shape,
              const std::string& data) {
    bytes.resize(static_cast<size_t>(round_up(static_cast<int64_t>(bytes.size()), 64)));
    add(&weights, "{\"name\": \"" + name + "\", \"dtype\": \"" + dtype + "\", \"shape\": [" +
                      shape + "], \"offset\": " + std::to_string(bytes.size()) +
                      ", \"bytes\": " + std::to_string(data.size()) + "}");
    bytes += data;
  }

  std::string floats(size_t n, float low, float high) {
    std::vector<float> values(n);
    for (float& v : values) v = low + (high - low) * static_cast<float>(random() % 1024) / 1023.0f;
    return std::string(reinterpret_cast<const char*>(values.data()), n * sizeof(float));
  }

  std::string noise(size_t n) {
    std::string out(n, 0);
    for (char& c : out) c = static_cast<char>(random() % 256);
    return out;
  }
};

// One decoder layer; AT stands where dense and sparse attention differ.
constexpr const char* kSteps = R"("body": [
    {"kernel": "rope_table", "operands": {"short": {"weight": "short"}, "long": {"weight": "long"},
     "y": {"buffer": "table"}}, "attributes": {"original_max": 64}},
    {"kernel": "embed", "stage": "embedding", "operands": {"ids": {"buffer": "token_ids"},
     "codes": {"weight": "embed"}, "y": {"buffer": "hidden"}}, "attributes": {"scale": 2}},
    {"kernel": "rms_norm", "operands": {"x": {"buffer": "hidden"}, "weight": {"weight": "norm"},
     "y": {"buffer": "normed"}}, "attributes": {"epsilon": 1e-05}},
    {"kernel": "matmul", "operands": {"x": {"buffer": "normed"}, "codes": {"weight": "qkv"},
     "scales": {"weight": "qkv.scales"}, "y": {"buffer": "qkv"}}},
    {"kernel": "rope", "operands": {"x": {"buffer": "qkv", "column": 0, "columns": 16},
     "table": {"buffer": "table"}}, "attributes": {"head_dim": 8}},
    {"kernel": "rope", "operands": {"x": {"buffer": "qkv", "column": 16, "columns": 8},
     "table": {"buffer": "table"}}, "attributes": {"head_dim": 8}},
    {"kernel": "cache_append", "operands": {"k": {"buffer": "qkv", "column": 16, "columns": 8},
     "v": {"buffer": "qkv", "column": 24, "columns": 8}, "key": {"cache": "key"}, "value": {"cache": "value"}}},
    AT
    {"kernel": "matmul", "operands": {"x": {"buffer": "mixed"}, "codes": {"weight": "o"},
     "scales": {"weight": "o.scales"},
     "residual": {"buffer": "hidden"}, "y": {"buffer": "hidden"}}, "attributes": {"scale": 0.5}},
    {"kernel": "matmul", "operands": {"x": {"buffer": "hidden"}, "codes": {"weight": "gate_up"},
     "scales": {"weight": "gate_up.scales"}, "y": {"buffer": "qkv"}}},
    {"kernel": "swiglu", "operands": {"gate": {"buffer": "qkv", "column": 0, "columns": 16},
     "up": {"buffer": "qkv", "column": 16, "columns": 16}, "y": {"buffer": "mixed"}}},
    {"kernel": "matmul", "operands": {"x": {"buffer": "mixed"}, "codes": {"weight": "o"},
     "scales": {"weight": "o.scales"},
     "residual": {"buffer": "hidden"}, "y": {"buffer": "head_input"}}}
  ],
  "head": [
    {"kernel": "rms_norm", "operands": {"x": {"buffer": "head_rows"}, "weight": {"weight": "norm"},
     "y": {"buffer": "head_rows"}}, "attributes": {"epsilon": 1e-05}},
    {"kernel": "matmul", "stage": "logits", "operands": {"x": {"buffer": "head_rows"},
     "codes": {"weight": "embed"}, "y": {"buffer": "logits"}}}
  ],
  "logits": "logits"
})";

constexpr const char* kDense =
    R"({"kernel": "attention", "operands": {"q": {"buffer": "qkv", "column": 0, "columns": 16},
     "key": {"cache": "key"}, "value": {"cache": "value"}, "y": {"buffer": "mixed"}},
     "attributes": {"heads": 2, "scale": 0.35}},)";

constexpr const char* kSparse =
    R"({"kernel": "compress_keys", "operands": {"key": {"cache": "key"}, "compressed": {"cache": "fine"}},
     "attributes": {"window": 2, "stride": 1}},
    {"kernel": "compress_keys", "operands": {"key": {"cache": "key"}, "compressed": {"cache": "coarse"}},
     "attributes": {"window": 8, "stride": 4}},
    {"kernel": "select_blocks", "operands": {"q": {"buffer": "qkv", "column": 0, "columns": 16},
     "fine": {"cache": "fine"}, "coarse": {"cache": "coarse"}, "y": {"buffer": "blocks"}},
     "attributes": {"heads": 2, "scale": 0.35, "block_size": 4, "kernel_size": 2, "kernel_stride": 1,
     "init_blocks": 1, "local_blocks": 1, "topk": 2, "dense_len": 9, "generation": 1, "exact_lse": 0},
     "keep": {"operand": "y", "layer": 0}},
    {"kernel": "block_sparse_attention", "operands": {"q": {"buffer": "qkv", "column": 0, "columns": 16},
     "key": {"cache": "key"}, "value": {"cache": "value"}, "blocks": {"buffer": "blocks"}, "y": {"buffer": "mixed"}},
     "attributes": {"heads": 2, "scale": 0.35, "block_size": 4}},)";

}  // namespace

Files real_files(bool sparse) {
  Builder b;
  b.buffer("token_ids", "i32", "tokens", 1);
  for (const char* name : {"hidden", "normed", "mixed", "head_input"})
    b.buffer(name, "f32", "tokens", 16);
  b.buffer("table", "f32", "tokens", 8);
  b.buffer("qkv", "f32", "tokens", 32);
  b.buffer("blocks", "i32", "tokens", 4);
  b.buffer("head_rows", "f32", "outputs", 16);
  b.buffer("logits", "f32", "outputs", 32);
  b.weight("embed", "f32", "32, 16", b.floats(512, -1, 1));
  b.weight("norm", "f32", "16", b.floats(16, 0.5f, 1.5f));
  b.weight("short", "f32", "4", b.floats(4, 0.01f, 1));
  b.weight("long", "f32", "4", b.floats(4, 0.01f, 1));
  b.weight("qkv", "u4", "32, 16", b.noise(256));
  b.weight("qkv.scales", "f32", "32, 1", b.floats(32, 0.01f, 0.1f));
  b.weight("o", "u2", "16, 16", b.noise(64));
  b.weight("o.scales", "f16", "16, 1", std::string(32, '\x20'));
  b.weight("gate_up", "i8", "32, 16", b.noise(512));
  b.weight("gate_up.scales", "f32", "32, 1", b.floats(32, 0.001f, 0.01f));
  std::string caches =
      R"({"name": "key", "kind": "key", "kv_heads": 1, "head_dim": 8},
    {"name": "value", "kind": "value", "kv_heads": 1, "head_dim": 8})";
  if (sparse) {
    caches += R"(,
    {"name": "fine", "kind": "compressed", "kv_heads": 1, "head_dim": 8, "window": 2, "stride": 1},
    {"name": "coarse", "kind": "compressed", "kv_heads": 1, "head_dim": 8, "window": 8, "stride": 4})";
  }
  Files files;
  files.weights = b.bytes;
  files.plan = "{\n  \"version\": 1, \"chunk\": 4, \"output_rows\": 2, \"arena_bytes\": " +
               std::to_string(b.arena) + ",\n  \"buffers\": [" + b.buffers +
               "],\n  \"weights\": [" + b.weights + "],\n  \"caches\": [" + caches + "],\n  " +
               replaced(kSteps, "AT", sparse ? kSparse : kDense);
  return files;
}

}  // namespace ark::testing
