#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "error.h"

namespace ark {
namespace {

void require(bool good, const char* name, double value, const char* expected) {
  if (good) return;
  fail(ARK_INVALID_ARGUMENT, std::string(name) + " " + std::to_string(value), expected, "");
}

// Index of the largest value, the first among equals; NaN never wins. -1 when there is none.
int32_t argmax(const float* logits, int32_t n) {
  int32_t best = -1;
  float highest = -INFINITY;
  for (int32_t i = 0; i < n; i++) {
    if (logits[i] > highest) {
      highest = logits[i];
      best = i;
    }
  }
  return best;
}

}  // namespace

Sampler::Sampler(const SamplerOptions& options, int32_t vocab_size)
    : options_(options), vocab_size_(vocab_size), random_(options.seed) {
  const SamplerOptions& o = options;
  require(std::isfinite(o.temperature) && o.temperature >= 0, "temperature", o.temperature,
          "0 or more");
  require(o.top_k >= 0, "top_k", o.top_k, "0 (off) or more");
  require(o.top_p > 0 && o.top_p <= 1, "top_p", o.top_p, "above 0 and at most 1 (off)");
  require(o.min_p >= 0 && o.min_p <= 1, "min_p", o.min_p, "0 (off) to 1");
  require(std::isfinite(o.repetition_penalty) && o.repetition_penalty > 0, "repetition_penalty",
          o.repetition_penalty, "above 0 (1: off)");
  seen_.resize(static_cast<size_t>(vocab_size));
}

void Sampler::see(int32_t token) {
  if (token < 0 || token >= vocab_size_ || seen_[static_cast<size_t>(token)]) return;
  seen_[static_cast<size_t>(token)] = true;
  seen_tokens_.push_back(token);
}

void Sampler::penalize(float* logits) const {
  const float penalty = options_.repetition_penalty;
  if (penalty == 1) return;
  for (int32_t token : seen_tokens_) {
    logits[token] = logits[token] > 0 ? logits[token] / penalty : logits[token] * penalty;
  }
}

int32_t Sampler::sample(float* logits) {
  penalize(logits);
  int32_t best = argmax(logits, vocab_size_);
  if (best < 0) {
    fail(ARK_EXECUTOR_FAILED, "the executor's logits hold no number", "at least one",
         "verify the bundle with: arkinfer verify");
  }
  // An infinite logit leaves nothing to draw: its exponential would not be a number.
  if (options_.temperature == 0 || std::isinf(logits[best])) return best;
  collect(logits);
  keep_top_k();
  keep_top_p();
  keep_min_p();
  // Weights relative to the best logit, so that nothing overflows.
  const double highest = logits[best] / static_cast<double>(options_.temperature);
  double total = 0;
  for (const Candidate& c : candidates_) {
    total += std::exp(c.logit / static_cast<double>(options_.temperature) - highest);
  }
  double left = uniform() * total;
  for (const Candidate& c : candidates_) {
    left -= std::exp(c.logit / static_cast<double>(options_.temperature) - highest);
    if (left < 0) return c.token;
  }
  return candidates_.back().token;  // rounding used up the last bit
}

void Sampler::collect(const float* logits) {
  candidates_.clear();
  for (int32_t i = 0; i < vocab_size_; i++) {
    if (logits[i] > -INFINITY) candidates_.push_back({logits[i], i});
  }
}

void Sampler::keep_top_k() {
  auto k = static_cast<size_t>(options_.top_k);
  if (k == 0 || k >= candidates_.size()) return;
  // Equals of the k-th stay, as in Hugging Face.
  std::vector<float> logits;
  logits.reserve(candidates_.size());
  for (const Candidate& c : candidates_) logits.push_back(c.logit);
  auto kth = logits.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(logits.begin(), kth, logits.end(), [](float a, float b) { return a > b; });
  float limit = *kth;
  candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(),
                                   [&](const Candidate& c) { return c.logit < limit; }),
                    candidates_.end());
}

void Sampler::keep_top_p() {
  if (options_.top_p >= 1) return;
  auto worse = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit < b.logit : a.token > b.token;
  };
  std::make_heap(candidates_.begin(), candidates_.end(), worse);
  const double temperature = options_.temperature;
  const double highest = candidates_.front().logit / temperature;
  double total = 0;
  for (const Candidate& c : candidates_) total += std::exp(c.logit / temperature - highest);
  // The heap gives the best candidate first, so only as much is sorted as is kept. One candidate
  // stays while the mass before it is below top_p; hence at least the first.
  double before = 0;
  auto end = candidates_.end();
  while (end != candidates_.begin() && before < options_.top_p * total) {
    std::pop_heap(candidates_.begin(), end, worse);
    --end;
    before += std::exp(end->logit / temperature - highest);
  }
  candidates_.erase(candidates_.begin(), end);
  std::reverse(candidates_.begin(), candidates_.end());
}

void Sampler::keep_min_p() {
  if (options_.min_p <= 0) return;
  float best = -INFINITY;
  for (const Candidate& c : candidates_) best = std::max(best, c.logit);
  const double temperature = options_.temperature;
  candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(),
                                   [&](const Candidate& c) {
                                     double difference = double{c.logit} - best;
                                     return std::exp(difference / temperature) < options_.min_p;
                                   }),
                    candidates_.end());
}

// std::uniform_real_distribution differs between standard libraries; the engine does not.
double Sampler::uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

}  // namespace ark
