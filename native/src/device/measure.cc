#include "device/measure.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "session.h"

namespace ark {
namespace {

constexpr double kPromptSeconds = 2;
constexpr double kAnswerSeconds = 1;
constexpr int64_t kFirstTokens = 4;
constexpr int64_t kDecoded = 16;

class Meter {
 public:
  explicit Meter(Session* session)
      : session_(session), logits_(static_cast<size_t>(session->model().manifest().vocab_size)) {}

  Speeds measure() {
    const int64_t context = session_->options().context;
    const int64_t most = std::min(session_->model().plan().chunk, context);
    int64_t tokens = std::min(most, kFirstTokens);
    double seconds = prompt(tokens);
    // As many as the time allows: a whole chunk where that is quick.
    while (tokens < most) {
      const int64_t next = std::min(most, tokens * 4);
      if (seconds * static_cast<double>(next) / static_cast<double>(tokens) > kPromptSeconds) break;
      tokens = next;
      seconds = prompt(tokens);
    }
    return {static_cast<double>(tokens) / seconds, 1 / decode(std::min(tokens, context - 1))};
  }

 private:
  // Seconds of a prompt in an empty session. What is quick runs twice, because the first run may
  // have had something to build or to map.
  double prompt(int64_t tokens) {
    session_->rollback(0);
    const double first = add(tokens);
    if (first > kPromptSeconds) return first;
    session_->rollback(0);
    return std::min(first, add(tokens));
  }

  double add(int64_t count) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    for (int32_t& token : tokens)
      token = static_cast<int32_t>(next_++ * 7919 % session_->id_limit());
    auto start = std::chrono::steady_clock::now();
    session_->append(tokens.data(), tokens.size(), false, logits_.data());
    std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    return std::max(passed.count(), 1e-9);
  }

  // The middle of the seconds of single tokens behind some that are there.
  double decode(int64_t past) {
    add_behind(past);  // has kernels and memory of its own
    std::vector<double> seconds;
    double total = 0;
    while (static_cast<int64_t>(seconds.size()) < kDecoded && total < kAnswerSeconds) {
      seconds.push_back(add_behind(past));
      total += seconds.back();
    }
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
  }

  double add_behind(int64_t past) {
    session_->rollback(static_cast<size_t>(past));
    return add(1);
  }

  Session* session_;
  std::vector<float> logits_;
  int64_t next_ = 1;
};

}  // namespace

Speeds measure_on(const std::shared_ptr<const Model>& model, const SessionOptions& options,
                  int32_t on, std::shared_ptr<const Region>* host_weights) {
  SessionOptions chosen = options;
  chosen.on = on;
  // Whatever the session's own context is, so that what is kept holds for all of them.
  chosen.context = std::min<int64_t>(model->manifest().context, model->plan().chunk + 1);
  Session session(model, chosen);
  if (host_weights) *host_weights = session.host_weights();
  return Meter(&session).measure();
}

}  // namespace ark
