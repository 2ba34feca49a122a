// From a prompt to pieces of text, above any executor.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "arkinfer.h"
#include "model.h"
#include "sampler.h"
#include "session.h"
#include "text_stream.h"

namespace ark {

struct Piece {
  int32_t token = -1;
  std::string text;
  ark_finish finish = ARK_FINISH_NONE;
};

// The table that drives a session; see ark_session_executor.
ark_executor session_executor(Session* session);

class Generation {
 public:
  // Raises ARK_INVALID_ARGUMENT or ARK_CONTEXT_OVERFLOW.
  Generation(std::shared_ptr<const Model> model, const ark_executor& executor,
             std::vector<int32_t> prompt, const ark_generate_options& options);

  // The next piece; after the end, the end again without text. The last sampled token is never
  // appended to the executor: nobody needs its logits.
  const Piece& next();
  void cancel();
  const ark_timings& timings() const { return timings_; }

 private:
  bool append_pending();  // false: cancelled
  void see(int32_t token, const char* where);
  void take(int32_t token);
  void finish(ark_finish reason);
  bool is_stop_id(int32_t token) const;
  bool cancelled() const;

  std::shared_ptr<const Model> model_;
  ark_executor executor_;
  Session* session_;              // when the executor is a session of this library, else nullptr
  std::vector<int32_t> pending_;  // tokens that the executor has not seen
  Sampler sampler_;
  TextStream text_;
  std::vector<int32_t> stop_ids_;
  int32_t max_tokens_;
  std::vector<float> logits_;
  std::atomic<bool> cancelled_{false};
  bool started_ = false;
  bool failed_ = false;
  Piece piece_;
  ark_timings timings_{};
};

}  // namespace ark
