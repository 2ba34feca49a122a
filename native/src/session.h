// A sequence of tokens with its caches: the plan executor.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "bind.h"
#include "memory.h"
#include "model.h"
#include "thread_pool.h"

namespace ark {

// What a session will occupy, exactly as Session allocates it.
struct MemoryPlan {
  int64_t weights = 0;
  int64_t kv_cache = 0;
  int64_t compressed_keys = 0;
  int64_t arena = 0;  // activations and scratch
  int64_t tokenizer = 0;
};
MemoryPlan plan_memory(const Model& model, const SessionOptions& options);

class Session {
 public:
  Session(std::shared_ptr<const Model> model, const SessionOptions& options);

  const Model& model() const { return *model_; }
  const SessionOptions& options() const { return options_; }
  int64_t length() const { return length_.load(std::memory_order_relaxed); }
  int64_t allocated_bytes() const;

  // See ark_session_append. Raises ARK_CONTEXT_OVERFLOW, ARK_INVALID_ARGUMENT, ARK_CANCELLED; the
  // length is then what it was.
  void append(const int32_t* tokens, size_t n, bool all_logits, float* logits);
  void rollback(size_t length);
  std::vector<int32_t> selected_blocks(int32_t layer, int32_t kv_head) const;
  void set_trace(ark_trace_fn trace, void* user);

  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  void clear_cancel() { cancelled_.store(false, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  void check_tokens(const int32_t* tokens, size_t n) const;
  void run_chunk(const int32_t* tokens, int64_t n, int64_t total);
  void run_head(int64_t first_row, int64_t rows, float* logits);
  void run_steps(std::vector<BoundStep>* steps, int64_t rows, int64_t total);
  void keep_row(const BoundStep& step, int64_t rows);
  void report(const BoundStep& step, int64_t rows, double seconds) const;
  char* buffer(size_t index) const { return arena_.data() + model_->plan().buffers[index].offset; }

  std::shared_ptr<const Model> model_;
  SessionOptions options_;
  int64_t id_limit_ = 0;  // token ids must be below this
  ThreadPool pool_;
  std::vector<Region> caches_;
  Region arena_;
  char* scratch_ = nullptr;
  BoundPlan bound_;
  std::atomic<int64_t> length_{0};
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> busy_{false};
  ark_trace_fn trace_ = nullptr;
  void* trace_user_ = nullptr;

  // The last row of every step with "keep", and the length that it belongs to (0: none).
  struct Kept {
    bool present = false;
    int64_t block_size = 64;
    std::vector<int32_t> row;
  };
  std::vector<Kept> kept_;
  int64_t kept_length_ = 0;
};

}  // namespace ark
