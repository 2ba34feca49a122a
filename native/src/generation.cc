#include "generation.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <new>
#include <utility>

#include "error.h"
#include "last_error.h"

namespace ark {
namespace {

int32_t append_to_session(void* user, const int32_t* tokens, size_t n, float* logits) {
  auto* session = static_cast<Session*>(user);
  return guard([&] {
    try {
      session->append(tokens, n, false, logits);
    } catch (const Error& error) {
      // A request to stop is used up by the append that it stopped.
      if (error.status() == ARK_CANCELLED) session->clear_cancel();
      throw;
    }
  });
}

int32_t rollback_session(void* user, size_t length) {
  return guard([&] { static_cast<Session*>(user)->rollback(length); });
}

size_t session_length(void* user) {
  return static_cast<size_t>(static_cast<Session*>(user)->length());
}

SamplerOptions sampler_options(const ark_generate_options& o) {
  return {o.temperature, o.top_k, o.top_p, o.min_p, o.repetition_penalty, o.seed};
}

std::vector<std::string> stop_strings(const ark_generate_options& options) {
  std::vector<std::string> strings;
  for (size_t i = 0; i < options.stop_string_count; i++) {
    const char* text = options.stop_strings[i];
    strings.emplace_back(text ? text : "");
  }
  return strings;
}

}  // namespace

ark_executor session_executor(Session* session) {
  ark_executor executor{};
  executor.size = sizeof(executor);
  executor.user = session;
  executor.vocab_size = session->model().manifest().vocab_size;
  executor.context = static_cast<size_t>(session->options().context);
  executor.append = append_to_session;
  executor.rollback = rollback_session;
  executor.length = session_length;
  return executor;
}

Generation::Generation(std::shared_ptr<const Model> model, const ark_executor& executor,
                       std::vector<int32_t> prompt, const ark_generate_options& options)
    : model_(std::move(model)),
      executor_(executor),
      session_(executor.append == append_to_session ? static_cast<Session*>(executor.user)
                                                    : nullptr),
      pending_(std::move(prompt)),
      sampler_(sampler_options(options), executor.vocab_size),
      text_(stop_strings(options)),
      stop_ids_(options.stop_ids, options.stop_ids + options.stop_id_count),
      max_tokens_(options.max_tokens),
      logits_(static_cast<size_t>(executor.vocab_size)) {
  if (!model_->vocabulary().present()) {
    fail(ARK_INVALID_BUNDLE, "the bundle holds no vocabulary.bin", "the bytes of every token",
         "compile the bundle again");
  }
  if (max_tokens_ < 0) {
    fail(ARK_INVALID_ARGUMENT, "max_tokens " + std::to_string(max_tokens_), "0 or more", "");
  }
  if (pending_.empty()) {
    fail(ARK_INVALID_ARGUMENT, "an empty prompt", "at least one token", "");
  }
  for (size_t i = 0; i < options.history_count; i++) see(options.history[i], "history");
  for (int32_t token : pending_) see(token, "prompt");
  size_t length = executor_.length(executor_.user);
  if (length > executor_.context || pending_.size() > executor_.context - length) {
    fail(ARK_CONTEXT_OVERFLOW,
         "a prompt of " + std::to_string(pending_.size()) + " tokens after " +
             std::to_string(length) + " in a context of " + std::to_string(executor_.context),
         "a prompt that fits", "shorten it or load with a larger context");
  }
  std::sort(stop_ids_.begin(), stop_ids_.end());
  timings_.size = sizeof(timings_);
  timings_.prompt_tokens = static_cast<int32_t>(pending_.size());
}

void Generation::see(int32_t token, const char* where) {
  if (token < 0 || token >= executor_.vocab_size) {
    fail(ARK_INVALID_ARGUMENT, "token id " + std::to_string(token) + " in the " + where,
         "0 to " + std::to_string(executor_.vocab_size - 1), "");
  }
  sampler_.see(token);
}

void Generation::cancel() {
  cancelled_.store(true, std::memory_order_relaxed);
  if (session_) session_->cancel();
}

bool Generation::cancelled() const {
  return cancelled_.load(std::memory_order_relaxed) || (session_ && session_->cancelled());
}

bool Generation::is_stop_id(int32_t token) const {
  return std::binary_search(stop_ids_.begin(), stop_ids_.end(), token);
}

const Piece& Generation::next() {
  if (failed_) {
    fail(ARK_INVALID_ARGUMENT, "a generation that has failed", "one that runs",
         "start another generation");
  }
  piece_.token = -1;
  piece_.text.clear();
  if (piece_.finish != ARK_FINISH_NONE) return piece_;
  if (!started_ && session_ && !cancelled_.load()) session_->clear_cancel();
  auto start = std::chrono::steady_clock::now();
  bool prefill = !started_;
  started_ = true;
  try {
    if (cancelled() || !append_pending()) {
      finish(ARK_FINISH_CANCELLED);
      if (session_) session_->clear_cancel();
    } else {
      take(sampler_.sample(logits_.data()));
    }
  } catch (...) {
    failed_ = true;
    throw;
  }
  std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
  (prefill ? timings_.prefill_seconds : timings_.decode_seconds) += passed.count();
  return piece_;
}

bool Generation::append_pending() {
  int32_t status =
      executor_.append(executor_.user, pending_.data(), pending_.size(), logits_.data());
  if (status == ARK_OK) return true;
  if (status == ARK_CANCELLED) return false;
  if (session_) throw Error(static_cast<ark_status>(status), ark_last_error());
  fail(ARK_EXECUTOR_FAILED, "the executor's append returned " + std::to_string(status), "0", "");
}

void Generation::take(int32_t token) {
  if (is_stop_id(token)) {
    finish(ARK_FINISH_STOP_ID);
    return;
  }
  piece_.token = token;
  timings_.generated_tokens++;
  sampler_.see(token);
  pending_.assign(1, token);
  if (text_.push(model_->vocabulary().bytes(token), &piece_.text)) {
    piece_.finish = ARK_FINISH_STOP_STRING;
  } else if (max_tokens_ > 0 && timings_.generated_tokens >= max_tokens_) {
    finish(ARK_FINISH_LENGTH);
  } else if (executor_.length(executor_.user) >= executor_.context) {
    finish(ARK_FINISH_CONTEXT);
  }
}

void Generation::finish(ark_finish reason) {
  piece_.finish = text_.flush(&piece_.text) ? ARK_FINISH_STOP_STRING : reason;
}

}  // namespace ark
