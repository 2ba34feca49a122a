// A tiny bundle written to a temporary folder, and kernels simple enough to predict.
//
// The model: vocabulary 32, hidden size 4, one layer, one key-value head. With E the table of
// weights and tokens t0..tn, the hidden state after tn is h = sum_i (i % 7 + 1) * E[ti] and the
// logits are E h. Every value is a small integer, so that results are exact in any order.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model.h"
#include "session.h"

namespace ark::testing {

constexpr int kVocab = 32;
constexpr int kHidden = 4;
constexpr int kContext = 200;

// Microseconds that the kernel "test_history" sleeps, for tests of cancellation.
extern std::atomic<int> history_delay;

std::string plan_text();
std::string manifest_text();  // without the files
std::string weights_bytes();
std::string vocabulary_bytes(const std::vector<std::string>& tokens);
// 0 "", 1.."a".., and pieces of characters from 20 on: 20+21 is U+4F60, 22+23 is U+1F600.
std::vector<std::string> tokens();

struct Files {
  std::string manifest = manifest_text();
  std::string plan = plan_text();
  std::string weights = weights_bytes();
  std::string vocabulary = vocabulary_bytes(tokens());
  std::string launches;  // of a device, in place of the plan
  std::string host;      // the CPU's plan beside them
};

// A folder of its own below $TMPDIR, removed with the object.
class TemporaryBundle {
 public:
  TemporaryBundle();
  ~TemporaryBundle();
  TemporaryBundle(const TemporaryBundle&) = delete;
  TemporaryBundle& operator=(const TemporaryBundle&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const char* name) const { return path_ + "/" + name; }
  // Writes every file with matching sizes and checksums; an empty plan leaves it and the weights
  // out.
  void write(const Files& files) const;

 private:
  std::string path_;
};

void write_file(const std::string& path, const std::string& bytes);
std::string read_file(const std::string& path);
// text with the first occurrence of from replaced; fails when there is none.
std::string replaced(std::string text, const std::string& from, const std::string& to);

// A decoder layer of the real kernels over random weights, for the tiny model's manifest: with
// quantized and float weights, LongRoPE past 64 tokens, and dense or block-sparse attention.
Files real_files(bool sparse);

std::shared_ptr<const Model> load(const Files& files);
std::shared_ptr<const Model> tiny_model();
SessionOptions tiny_options(int64_t context = kContext, int32_t threads = 2);
// What the model's definition above says, computed here.
std::vector<float> expected_logits(const std::vector<int32_t>& tokens);

}  // namespace ark::testing
