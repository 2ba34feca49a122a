#include "fixture.h"

#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

#include "check.h"
#include "crc32c.h"
#include "isa.h"
#include "sha256.h"
#include "thread_pool.h"

namespace ark::testing {
namespace {

float table_value(int row, int column) {
  return static_cast<float>((row * 5 + column * 3) % 7 - 3);
}

std::string file_entry(const std::string& name, const std::string& bytes) {
  ThreadPool pool(1);
  char crc[16];
  std::snprintf(crc, sizeof(crc), "0x%08x",
                bundle_checksum(bytes.data(), bytes.size(), pool.parallel()));
  return "\"" + name + "\": {\"bytes\": " + std::to_string(bytes.size()) + ", \"sha256\": \"" +
         sha256_hex(bytes.data(), bytes.size()) + "\", \"crc32c\": \"" + crc + "\"}";
}

}  // namespace

std::string plan_text() {
  return R"({
  "version": 1, "chunk": 4, "output_rows": 2, "arena_bytes": 640,
  "buffers": [
    {"name": "token_ids", "dtype": "i32", "rows": "tokens", "columns": 1, "offset": 0},
    {"name": "hidden", "dtype": "f32", "rows": "tokens", "columns": 4, "offset": 64},
    {"name": "head_input", "dtype": "f32", "rows": "tokens", "columns": 4, "offset": 128},
    {"name": "head_rows", "dtype": "f32", "rows": "outputs", "columns": 4, "offset": 192},
    {"name": "logits", "dtype": "f32", "rows": "outputs", "columns": 32, "offset": 256},
    {"name": "blocks", "dtype": "i32", "rows": "tokens", "columns": 4, "offset": 512}
  ],
  "weights": [{"name": "table", "dtype": "f32", "shape": [32, 4], "offset": 64, "bytes": 512}],
  "caches": [{"name": "key", "kind": "key", "kv_heads": 1, "head_dim": 4},
             {"name": "fine", "kind": "compressed", "kv_heads": 1, "head_dim": 4, "window": 32, "stride": 16}],
  "body": [
    {"kernel": "test_embed", "stage": "embedding",
     "operands": {"ids": {"buffer": "token_ids"}, "codes": {"weight": "table"}, "y": {"buffer": "hidden"}}},
    {"kernel": "test_history", "stage": "layers.0.output",
     "operands": {"x": {"buffer": "hidden", "column": 0, "columns": 4}, "key": {"cache": "key"},
                  "y": {"buffer": "head_input"}},
     "attributes": {"period": 7}},
    {"kernel": "test_select", "operands": {"y": {"buffer": "blocks"}}, "attributes": {"block_size": 16},
     "keep": {"operand": "y", "layer": 0}}
  ],
  "head": [
    {"kernel": "test_head", "stage": "logits",
     "operands": {"x": {"buffer": "head_rows"}, "codes": {"weight": "table"}, "y": {"buffer": "logits"}}}
  ],
  "logits": "logits"
})";
}

std::string manifest_text() {
  return R"({"format_version": 1, "runtime_abi": {"minimum": 1, "maximum": 1}, "backend": "cpu",
  "model": {"model_type": "test", "vocab_size": 32, "num_layers": 1, "num_kv_heads": 1},
  "context": 200, "chunk": 4, "files": {FILES}})";
}

// One table [32, 4] in panels of 16 rows, behind 64 bytes that nothing reads.
std::string weights_bytes() {
  std::vector<float> values(16, 0.0f);
  for (int panel = 0; panel < kVocab / 16; panel++) {
    for (int column = 0; column < kHidden; column++) {
      for (int lane = 0; lane < 16; lane++)
        values.push_back(table_value(panel * 16 + lane, column));
    }
  }
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

std::string vocabulary_bytes(const std::vector<std::string>& tokens) {
  std::vector<uint32_t> words{static_cast<uint32_t>(tokens.size()), 0};
  std::string text;
  for (const std::string& token : tokens) {
    text += token;
    words.push_back(static_cast<uint32_t>(text.size()));
  }
  return std::string(reinterpret_cast<const char*>(words.data()), words.size() * 4) + text;
}

std::vector<std::string> tokens() {
  std::vector<std::string> list(kVocab);
  for (int i = 1; i < 20; i++)
    list[static_cast<size_t>(i)] = std::string(1, static_cast<char>('a' + i - 1));
  list[20] = "\xE4\xBD";
  list[21] = "\xA0";
  list[22] = "\xF0\x9F";
  list[23] = "\x98\x80";
  list[24] = "\xFF";
  list[25] = "</s";
  list[26] = ">";
  list[27] = "x</";
  return list;
}

TemporaryBundle::TemporaryBundle() {
  const char* root = getenv("TMPDIR");
  std::string pattern = std::string(root && *root ? root : "/tmp") + "/ark-test-XXXXXX";
  CHECK(mkdtemp(&pattern[0]) != nullptr);
  path_ = pattern;
}

TemporaryBundle::~TemporaryBundle() {
  for (const char* name : {"DIGEST", "manifest.json", "plan.json", "launches.json", "plan.cpu.json",
                           "kernels.cl", "weights.bin", "vocabulary.bin"}) {
    unlink(file(name).c_str());
  }
  rmdir(path_.c_str());
}

void TemporaryBundle::write(const Files& files) const {
  std::string list;
  auto add = [&](const char* name, const std::string& bytes) {
    if (!list.empty()) list += ", ";
    list += file_entry(name, bytes);
    write_file(file(name), bytes);
  };
  if (!files.plan.empty()) add("plan.json", files.plan);
  if (!files.launches.empty()) {
    add("launches.json", files.launches);
    add("kernels.cl", "__kernel void none() {}");
    if (!files.host.empty()) add("plan.cpu.json", files.host);
  }
  if (!files.plan.empty() || !files.launches.empty()) add("weights.bin", files.weights);
  add("vocabulary.bin", files.vocabulary);
  std::string manifest = files.manifest;
  size_t place = manifest.find("FILES");
  if (place != std::string::npos) manifest.replace(place, 5, list);
  write_file(file("manifest.json"), manifest);
  write_file(file("DIGEST"), sha256_hex(manifest.data(), manifest.size()) + "\n");
}

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string read_file(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  size_t place = text.find(from);
  if (place == std::string::npos) report(__FILE__, __LINE__, "nothing to replace: " + from);
  return text.replace(place, from.size(), to);
}

std::shared_ptr<const Model> load(const Files& files) {
  TemporaryBundle bundle;  // mapped files outlive their names
  bundle.write(files);
  return std::make_shared<const Model>(bundle.path());
}

std::shared_ptr<const Model> tiny_model() { return load(Files()); }

SessionOptions tiny_options(int64_t context, int32_t threads) {
  return {context,          threads, DType::f32, ARK_ACTIVATIONS_F32, usable_isas().front(),
          ARK_KERNELS_TUNED};
}

std::vector<float> expected_logits(const std::vector<int32_t>& tokens) {
  float hidden[kHidden] = {};
  for (size_t i = 0; i < tokens.size(); i++) {
    for (int h = 0; h < kHidden; h++) {
      hidden[h] += static_cast<float>(i % 7 + 1) * table_value(tokens[i], h);
    }
  }
  std::vector<float> logits(kVocab);
  for (int v = 0; v < kVocab; v++) {
    for (int h = 0; h < kHidden; h++)
      logits[static_cast<size_t>(v)] += table_value(v, h) * hidden[h];
  }
  return logits;
}

}  // namespace ark::testing
