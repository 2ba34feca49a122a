// Logits to a token. The order of the steps is that of Hugging Face's logits processors:
// repetition penalty, temperature, top-k, top-p, min-p, then one draw.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace ark {

struct SamplerOptions {
  float temperature = 1;  // 0: greedy, the lowest id among equals
  int32_t top_k = 0;      // 0: off
  float top_p = 1;        // 1: off
  float min_p = 0;        // 0: off
  float repetition_penalty = 1;
  uint64_t seed = 0;
};

class Sampler {
 public:
  // Raises ARK_INVALID_ARGUMENT for a value outside its range.
  Sampler(const SamplerOptions& options, int32_t vocab_size);

  // Tells the repetition penalty about a token of the prompt or of the answer.
  void see(int32_t token);
  // logits [vocab_size] are changed. Raises ARK_EXECUTOR_FAILED when none of them is a number above
  // minus infinity.
  int32_t sample(float* logits);

 private:
  struct Candidate {
    float logit;
    int32_t token;
  };

  void penalize(float* logits) const;
  void collect(const float* logits);
  void keep_top_k();
  void keep_top_p();
  void keep_min_p();
  double uniform();  // in [0, 1)

  SamplerOptions options_;
  int32_t vocab_size_;
  std::mt19937_64 random_;
  std::vector<bool> seen_;
  std::vector<int32_t> seen_tokens_;
  std::vector<Candidate> candidates_;
};

}  // namespace ark
