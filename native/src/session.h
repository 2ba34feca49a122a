// A sequence of tokens with its caches: the plan executor.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "bind.h"
#include "device/choice.h"
#include "device/device_run.h"
#include "draft.h"
#include "kv_cache.h"
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
  // What it runs on, and why.
  const Choice& choice() const { return choice_; }
  // Token ids are below this.
  int64_t id_limit() const { return id_limit_; }
  // The CPU's weights in a bundle for a device; null on the device and for other bundles.
  const std::shared_ptr<const Region>& host_weights() const { return host_weights_; }

  // See ark_session_append. Raises ARK_CONTEXT_OVERFLOW, ARK_INVALID_ARGUMENT, ARK_CANCELLED; the
  // length is then what it was.
  void append(const int32_t* tokens, size_t n, bool all_logits, float* logits);
  void rollback(size_t length);
  // See ark_session_verify_tree and ark_session_accept. Raise what append does, and
  // ARK_INVALID_ARGUMENT for parents or a path that are no tree or no path.
  void verify_tree(const int32_t* tokens, const int32_t* parents, size_t n, float* logits);
  void accept(const int32_t* path, size_t n);
  // See ark_session_fill_random. Raises ARK_CONTEXT_OVERFLOW, ARK_INVALID_ARGUMENT, ARK_CANCELLED.
  void fill_random(size_t length, uint64_t seed);
  // How many tokens a draft tree may have.
  int64_t most_draft_tokens() const;
  std::vector<int32_t> selected_blocks(int32_t layer, int32_t kv_head) const;
  void set_trace(ark_trace_fn trace, void* user);

  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  void clear_cancel() { cancelled_.store(false, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  bool open_chosen_device();
  void open_device();
  void open_host();
  [[noreturn]] void refuse_on_device(const std::string& what) const;
  void check_tokens(const int32_t* tokens, size_t n) const;
  void run_tokens(const int32_t* tokens, size_t n, bool all_logits, float* logits);
  void run_chunk(const int32_t* tokens, int64_t n, int64_t total);
  void run_tree(const int32_t* tokens, int64_t n, float* logits);
  // Runs the steps that compute caches from caches, for tokens that are there but not counted yet.
  void update_caches(int64_t tokens, int64_t total);
  Call make_call(int64_t rows, int64_t total);
  void run_step(BoundStep* step, Call* call);
  static void compute(BoundStep* step, const Call& call);
  CacheStore store(size_t cache) const;
  void run_head(int64_t first_row, int64_t rows, float* logits);
  void run_heads(int64_t rows, float* logits);
  void run_steps(std::vector<BoundStep>* steps, int64_t rows, int64_t total);
  void keep_rows(const BoundStep& step, int64_t rows);
  void report(const BoundStep& step, int64_t rows, double seconds) const;
  char* buffer(size_t index) const { return arena_.data() + model_->plan().buffers[index].offset; }

  std::shared_ptr<const Model> model_;
  SessionOptions options_;
  Choice choice_;
  int64_t id_limit_ = 0;
  ThreadPool pool_;
  std::shared_ptr<const Region> host_weights_;
  std::vector<Region> caches_;
  Region arena_;
  char* scratch_ = nullptr;
  BoundPlan bound_;
  std::unique_ptr<DeviceRun> device_;  // in place of arena, caches and bound_, where there is one
  std::atomic<int64_t> length_{0};
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> busy_{false};
  ark_trace_fn trace_ = nullptr;
  void* trace_user_ = nullptr;

  // The last rows of every step with "keep": one, or one per token of a tree.
  struct Kept {
    bool present = false;
    int64_t block_size = 64;
    size_t columns = 0;
    std::vector<int32_t> rows;
  };
  std::vector<Kept> kept_;
  int64_t kept_rows_ = 1;    // how many rows steps keep now
  int64_t kept_row_ = 0;     // the one that selected_blocks shows
  int64_t kept_length_ = 0;  // the length that it belongs to (0: none)

  DraftTree tree_;  // what verify_tree ran last; no nodes: none
  bool tree_running_ = false;
};

}  // namespace ark
