#include "host_files.h"

#include "launch_files.h"

namespace ark::testing {
namespace {

// The steps of launch_files() that need no blocks; the weights are all of theirs, in panels.
constexpr const char* kPlan = R"({
  "version": 1, "chunk": 4, "output_rows": 2, "arena_bytes": 2432,
  "buffers": [
    {"name": "token_ids", "dtype": "i32", "rows": "tokens", "columns": 1, "offset": 0},
    {"name": "head_input", "dtype": "f32", "rows": "tokens", "columns": 16, "offset": 64},
    {"name": "normed", "dtype": "f32", "rows": "tokens", "columns": 16, "offset": 320},
    {"name": "qkv", "dtype": "f32", "rows": "tokens", "columns": 32, "offset": 576},
    {"name": "table", "dtype": "f32", "rows": "tokens", "columns": 8, "offset": 1088},
    {"name": "mixed", "dtype": "f32", "rows": "tokens", "columns": 16, "offset": 1216},
    {"name": "head_rows", "dtype": "f32", "rows": "outputs", "columns": 16, "offset": 1472},
    {"name": "logits", "dtype": "f32", "rows": "outputs", "columns": 32, "offset": 1728}
  ],
  "weights_bytes": 2048,
  "weights": [
    {"name": "table", "dtype": "f16", "shape": [32, 16], "offset": 0, "bytes": 1024},
    {"name": "norm", "dtype": "f32", "shape": [16], "offset": 1024, "bytes": 64},
    {"name": "short", "dtype": "f32", "shape": [4], "offset": 1088, "bytes": 16},
    {"name": "long", "dtype": "f32", "shape": [4], "offset": 1152, "bytes": 16},
    {"name": "qkv.codes", "dtype": "u4", "shape": [32, 16], "offset": 1216, "bytes": 256},
    {"name": "qkv.scales", "dtype": "f16", "shape": [32, 2], "offset": 1472, "bytes": 128},
    {"name": "qkv.zero_points", "dtype": "u8", "shape": [32, 2], "offset": 1600, "bytes": 64},
    {"name": "o.codes", "dtype": "i8", "shape": [16, 16], "offset": 1664, "bytes": 256},
    {"name": "o.scales", "dtype": "f32", "shape": [16, 1], "offset": 1920, "bytes": 64},
    {"name": "o.minimums", "dtype": "f32", "shape": [16, 1], "offset": 1984, "bytes": 64}
  ],
  "sources": [
    {"matrix": {"values": "f16", "inputs": 16, "bits": 16, "group": 16, "scale_words": 0,
                "parts": [{"outputs": 20, "codes": "table.0"}, {"outputs": 12, "codes": "table.20"}]},
     "codes": "table"},
    {"vector": "norm"}, {"vector": "short"}, {"vector": "long"},
    {"matrix": {"values": "offset", "inputs": 16, "bits": 4, "group": 8, "scale_words": 1,
                "parts": [{"outputs": 32, "codes": "qkv", "scales": "qkv.scales"}]},
     "codes": "qkv.codes", "scales": "qkv.scales", "offsets": "qkv.zero_points"},
    {"matrix": {"values": "minimum", "inputs": 16, "bits": 8, "group": 16, "scale_words": 2,
                "parts": [{"outputs": 16, "codes": "o", "scales": "o.scales"}]},
     "codes": "o.codes", "scales": "o.scales", "offsets": "o.minimums"}
  ],
  "caches": [{"name": "key", "kind": "key", "kv_heads": 1, "head_dim": 8},
             {"name": "value", "kind": "value", "kv_heads": 1, "head_dim": 8}],
  "body": [
    {"kernel": "rope_table", "operands": {"short": {"weight": "short"}, "long": {"weight": "long"},
     "y": {"buffer": "table"}}, "attributes": {"original_max": 64}},
    {"kernel": "embed", "operands": {"ids": {"buffer": "token_ids"}, "codes": {"weight": "table"},
     "y": {"buffer": "head_input"}}, "attributes": {"scale": 2}},
    {"kernel": "rms_norm", "operands": {"x": {"buffer": "head_input"}, "weight": {"weight": "norm"},
     "y": {"buffer": "normed"}}, "attributes": {"epsilon": 1e-05}},
    {"kernel": "matmul", "operands": {"x": {"buffer": "normed"}, "codes": {"weight": "qkv.codes"},
     "scales": {"weight": "qkv.scales"}, "offsets": {"weight": "qkv.zero_points"}, "y": {"buffer": "qkv"}}},
    {"kernel": "rope", "operands": {"x": {"buffer": "qkv", "column": 16, "columns": 8},
     "table": {"buffer": "table"}}, "attributes": {"head_dim": 8}},
    {"kernel": "cache_append", "operands": {"k": {"buffer": "qkv", "column": 16, "columns": 8},
     "v": {"buffer": "qkv", "column": 24, "columns": 8}, "key": {"cache": "key"}, "value": {"cache": "value"}}},
    {"kernel": "attention", "operands": {"q": {"buffer": "qkv", "column": 0, "columns": 16},
     "key": {"cache": "key"}, "value": {"cache": "value"}, "y": {"buffer": "mixed"}},
     "attributes": {"heads": 2, "scale": 0.35}},
    {"kernel": "matmul", "operands": {"x": {"buffer": "mixed"}, "codes": {"weight": "o.codes"},
     "scales": {"weight": "o.scales"}, "offsets": {"weight": "o.minimums"},
     "residual": {"buffer": "head_input"}, "y": {"buffer": "head_input"}}, "attributes": {"scale": 0.5}}
  ],
  "head": [
    {"kernel": "matmul", "operands": {"x": {"buffer": "head_rows"}, "codes": {"weight": "table"},
     "y": {"buffer": "logits"}}}
  ],
  "logits": "logits"
})";

}  // namespace

Files host_files() {
  Files files = launch_files();
  files.host = kPlan;
  return files;
}

}  // namespace ark::testing
