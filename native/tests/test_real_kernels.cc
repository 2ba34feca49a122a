#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "fixture.h"
#include "generation.h"
#include "isa.h"

using namespace ark;
using namespace ark::testing;

namespace {

constexpr size_t kTokens =
    90;  // past the change of RoPE factors at 64 and several blocks of caches

std::vector<int32_t> some_tokens() {
  std::vector<int32_t> tokens(kTokens);
  for (size_t i = 0; i < kTokens; i++)
    tokens[i] = static_cast<int32_t>((i * 7 + i * i / 5) % kVocab);
  return tokens;
}

std::vector<float> logits_of(const std::shared_ptr<const Model>& model,
                             const SessionOptions& options, const std::vector<size_t>& cuts) {
  Session session(model, options);
  std::vector<int32_t> tokens = some_tokens();
  std::vector<float> logits(kVocab);
  size_t at = 0;
  for (size_t end : cuts) {
    session.append(tokens.data() + at, end - at, false, logits.data());
    at = end;
  }
  return logits;
}

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0;
  double largest = 0;
  for (size_t i = 0; i < a.size(); i++) {
    CHECK(std::isfinite(a[i]) && std::isfinite(b[i]));
    worst = std::max(worst, std::fabs(double{a[i]} - b[i]));
    largest = std::max(largest, std::fabs(double{a[i]}));
  }
  CHECK(largest > 0.01);
  return worst / largest;
}

}  // namespace

TEST(real_kernels_agree_between_instruction_sets) {
  for (bool sparse : {false, true}) {
    std::shared_ptr<const Model> model = load(real_files(sparse));
    SessionOptions options = tiny_options();
    for (int32_t activations : {ARK_ACTIVATIONS_F32, ARK_ACTIVATIONS_INT8}) {
      options.activations = activations;
      options.isa = Isa::scalar;
      std::vector<float> expected = logits_of(model, options, {kTokens});
      // A last bit of an activation may move its int8 code by one.
      double tolerance = activations == ARK_ACTIVATIONS_INT8 ? 1e-2 : 1e-4;
      for (Isa isa : usable_isas()) {
        options.isa = isa;
        CHECK(difference(expected, logits_of(model, options, {kTokens})) < tolerance);
      }
    }
  }
}

TEST(real_kernels_do_not_depend_on_threads) {
  for (bool sparse : {false, true}) {
    std::shared_ptr<const Model> model = load(real_files(sparse));
    for (int32_t activations : {0, 1}) {
      SessionOptions options = tiny_options(kContext, 1);
      options.activations = activations;
      std::vector<float> one = logits_of(model, options, {kTokens});
      options.threads = 3;
      CHECK(one == logits_of(model, options, {kTokens}));
    }
  }
}

TEST(real_kernels_do_not_depend_on_how_tokens_arrive) {
  for (bool sparse : {false, true}) {
    std::shared_ptr<const Model> model = load(real_files(sparse));
    // Both calls end with all tokens beyond the change of RoPE factors in one append.
    std::vector<float> once = logits_of(model, tiny_options(), {60, kTokens});
    std::vector<size_t> singly;
    for (size_t i = 1; i <= 60; i++) singly.push_back(i);
    singly.push_back(kTokens);
    CHECK(difference(once, logits_of(model, tiny_options(), singly)) < 1e-5);
  }
}

TEST(real_kernels_cache_in_fp16) {
  for (bool sparse : {false, true}) {
    std::shared_ptr<const Model> model = load(real_files(sparse));
    SessionOptions options = tiny_options();
    // Before the first choice of blocks: rounding may turn a choice around.
    std::vector<float> wide = logits_of(model, options, {8});
    options.cache_dtype = DType::f16;
    CHECK(difference(wide, logits_of(model, options, {8})) < 1e-2);
  }
}

TEST(real_kernels_roll_back) {
  for (bool sparse : {false, true}) {
    std::shared_ptr<const Model> model = load(real_files(sparse));
    Session session(model, tiny_options());
    std::vector<int32_t> tokens = some_tokens();
    std::vector<float> first(kVocab);
    std::vector<float> second(kVocab);
    session.append(tokens.data(), 37, false, nullptr);
    session.append(tokens.data() + 37, 20, false, first.data());
    session.rollback(37);
    std::vector<int32_t> others(23, 5);
    session.append(others.data(), others.size(), false, nullptr);
    session.rollback(37);
    session.append(tokens.data() + 37, 20, false, second.data());
    CHECK(first == second);
  }
}

TEST(real_kernels_report_selected_blocks) {
  Session session(load(real_files(true)), tiny_options());
  std::vector<int32_t> tokens = some_tokens();
  session.append(tokens.data(), 6, false, nullptr);
  CHECK((session.selected_blocks(0, 0) == std::vector<int32_t>{0, 1}));  // dense below 9 tokens
  session.append(tokens.data() + 6, kTokens - 6, false, nullptr);
  std::vector<int32_t> blocks = session.selected_blocks(0, 0);
  // Three blocks: the first, and the window of the newest and the one before it.
  CHECK((blocks == std::vector<int32_t>{0, 21, 22}));
}

TEST(real_kernels_generate) {
  std::shared_ptr<const Model> model = load(real_files(true));
  Session session(model, tiny_options());
  ark_generate_options options{};
  options.size = sizeof(options);
  options.top_p = 1;
  options.repetition_penalty = 1;
  Generation generation(model, session_executor(&session), {1, 2, 3}, options);
  int tokens = 0;
  ark_finish finish = ARK_FINISH_NONE;
  while (finish == ARK_FINISH_NONE) {
    const Piece& piece = generation.next();
    tokens += piece.token >= 0;
    finish = piece.finish;
  }
  CHECK(finish == ARK_FINISH_CONTEXT && tokens == kContext - 3 + 1);
}
