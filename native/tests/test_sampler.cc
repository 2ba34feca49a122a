#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "sampler.h"

using ark::Sampler;
using ark::SamplerOptions;

namespace {

SamplerOptions with(float temperature, int32_t top_k = 0, float top_p = 1, float min_p = 0,
                    float penalty = 1, uint64_t seed = 0) {
  return {temperature, top_k, top_p, min_p, penalty, seed};
}

// How often each token comes in n draws.
std::vector<double> frequencies(const SamplerOptions& options, const std::vector<float>& logits,
                                int n = 40000) {
  Sampler sampler(options, static_cast<int32_t>(logits.size()));
  std::vector<double> found(logits.size());
  for (int i = 0; i < n; i++) {
    std::vector<float> copy = logits;
    found[static_cast<size_t>(sampler.sample(copy.data()))] += 1.0 / n;
  }
  return found;
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature,
                            const std::vector<bool>& kept) {
  std::vector<double> p(logits.size());
  double total = 0;
  for (size_t i = 0; i < p.size(); i++) {
    if (kept[i]) total += p[i] = std::exp(logits[i] / temperature);
  }
  for (double& value : p) value /= total;
  return p;
}

void check_close(const std::vector<double>& found, const std::vector<double>& expected) {
  for (size_t i = 0; i < found.size(); i++) {
    if (expected[i] == 0) CHECK(found[i] == 0);
    // Five standard deviations of 40,000 draws at most.
    CHECK(std::fabs(found[i] - expected[i]) < 0.0125);
  }
}

const std::vector<float> kLogits{1.0f, 3.0f, 2.0f, 0.0f, 2.0f, -1.0f};

}  // namespace

TEST(sampler_greedy_takes_the_lowest_id_among_equals) {
  Sampler sampler(with(0), 4);
  std::vector<float> logits{1, 5, 5, 2};
  CHECK(sampler.sample(logits.data()) == 1);
  std::vector<float> odd{NAN, -INFINITY, -3, NAN};
  CHECK(sampler.sample(odd.data()) == 2);
  std::vector<float> infinite{0, 1, INFINITY, INFINITY};
  Sampler warm(with(1), 4);
  CHECK(warm.sample(infinite.data()) == 2);
}

TEST(sampler_draws_the_softmax) {
  check_close(frequencies(with(1), kLogits), softmax(kLogits, 1, std::vector<bool>(6, true)));
  check_close(frequencies(with(2.5f), kLogits), softmax(kLogits, 2.5, std::vector<bool>(6, true)));
}

TEST(sampler_top_k_keeps_equals_of_the_last) {
  // The third and second best are equal, so k = 2 keeps three.
  check_close(frequencies(with(1, 2), kLogits),
              softmax(kLogits, 1, {false, true, true, false, true, false}));
  check_close(frequencies(with(1, 1), kLogits),
              softmax(kLogits, 1, {false, true, false, false, false, false}));
  check_close(frequencies(with(1, 100), kLogits), softmax(kLogits, 1, std::vector<bool>(6, true)));
}

TEST(sampler_top_p_keeps_the_smallest_set) {
  // Probabilities 0.5, 0.3, 0.15, 0.05.
  std::vector<float> logits{std::log(0.15f), std::log(0.5f), std::log(0.05f), std::log(0.3f)};
  check_close(frequencies(with(1, 0, 0.45f), logits), {0, 1, 0, 0});
  check_close(frequencies(with(1, 0, 0.75f), logits), {0, 0.625, 0, 0.375});
  check_close(frequencies(with(1, 0, 0.9f), logits), {0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95});
  check_close(frequencies(with(1, 0, 1e-6f), logits), {0, 1, 0, 0});
}

TEST(sampler_min_p_is_relative_to_the_best) {
  std::vector<float> logits{std::log(0.15f), std::log(0.5f), std::log(0.05f), std::log(0.3f)};
  check_close(frequencies(with(1, 0, 1, 0.5f), logits), {0, 0.625, 0, 0.375});
  check_close(frequencies(with(1, 0, 1, 1.0f), logits), {0, 1, 0, 0});
}

TEST(sampler_applies_temperature_before_top_p) {
  // At temperature 0.5 the best alone holds 0.25/0.365 of the mass, so top_p 0.6 keeps it alone.
  std::vector<float> logits{std::log(0.15f), std::log(0.5f), std::log(0.05f), std::log(0.3f)};
  check_close(frequencies(with(0.5f, 0, 0.6f), logits), {0, 1, 0, 0});
}

TEST(sampler_penalizes_repetition_once_per_token) {
  Sampler sampler(with(0, 0, 1, 0, 2.0f), 4);
  sampler.see(0);
  sampler.see(0);
  sampler.see(3);
  sampler.see(-1);
  sampler.see(99);
  std::vector<float> logits{3.0f, 1.6f, 1.0f, -1.0f};
  CHECK(sampler.sample(logits.data()) == 1);
  CHECK(logits[0] == 1.5f && logits[1] == 1.6f && logits[3] == -2.0f);
}

TEST(sampler_seeds) {
  auto draw = [](uint64_t seed) {
    Sampler sampler(with(1, 0, 0.99f, 0, 1, seed), 6);
    std::vector<int32_t> tokens;
    for (int i = 0; i < 32; i++) {
      std::vector<float> copy = kLogits;
      tokens.push_back(sampler.sample(copy.data()));
    }
    return tokens;
  };
  CHECK(draw(7) == draw(7));
  CHECK(draw(7) != draw(8));
}

TEST(sampler_refuses_bad_options) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const SamplerOptions& bad : {with(-1), with(nan), with(INFINITY), with(1, -1), with(1, 0, 0),
                                    with(1, 0, 1.5f), with(1, 0, nan), with(1, 0, 1, -0.1f),
                                    with(1, 0, 1, 2), with(1, 0, 1, 0, 0), with(1, 0, 1, 0, nan)}) {
    CHECK_ERROR(ARK_INVALID_ARGUMENT, {"expected"}, Sampler(bad, 4));
  }
  Sampler sampler(with(1), 2);
  std::vector<float> nothing{-INFINITY, nan};
  CHECK_ERROR(ARK_EXECUTOR_FAILED, {"no number"}, sampler.sample(nothing.data()));
}
