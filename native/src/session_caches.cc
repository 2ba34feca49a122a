// What a session does to its caches outside the plan: draft trees and synthetic contents.
#include <algorithm>
#include <string>

#include "busy.h"
#include "error.h"
#include "kv_layout.h"
#include "session.h"

namespace ark {

int64_t Session::most_draft_tokens() const {
  return std::min(model_->plan().chunk, static_cast<int64_t>(kMostDraftTokens));
}

CacheStore Session::store(size_t cache) const {
  const PlanCache& plan = model_->plan().caches[cache];
  CacheShape shape = cache_shape(plan, options_);
  int64_t blocks = plan.kind == CacheKind::value ? shape.dims[1] / kKvBlock : shape.dims[1];
  return {caches_[cache].data(), plan.kind, shape.dtype, plan.kv_heads, plan.head_dim, blocks};
}

void Session::update_caches(int64_t tokens, int64_t total) {
  Call call = make_call(tokens, total);
  for (BoundStep& step : bound_.body) {
    bool caches_only =
        std::all_of(step.plan->operands.begin(), step.plan->operands.end(),
                    [](const PlanOperand& o) { return o.kind == PlanOperand::Kind::cache; });
    if (caches_only) run_step(&step, &call);
  }
}

void Session::verify_tree(const int32_t* tokens, const int32_t* parents, size_t n, float* logits) {
  Busy busy(&busy_);
  DraftTree tree = DraftTree::parse(parents, n, static_cast<size_t>(most_draft_tokens()));
  check_tokens(tokens, n);
  if (device_ && !tree.is_chain) refuse_on_device("a draft tree that branches");
  tree_ = {};
  const int64_t before = length();
  kept_rows_ = static_cast<int64_t>(n);
  try {
    std::swap(tree_, tree);
    if (tree_.is_chain) {
      run_tokens(tokens, n, true, logits);
    } else {
      run_tree(tokens, static_cast<int64_t>(n), logits);
    }
  } catch (...) {
    tree_ = {};
    tree_running_ = false;
    kept_rows_ = 1;
    throw;
  }
  tree_running_ = false;
  kept_rows_ = 1;
  kept_length_ = 0;
  length_.store(before, std::memory_order_relaxed);
}

void Session::run_tree(const int32_t* tokens, int64_t n, float* logits) {
  tree_running_ = true;
  run_chunk(tokens, n, length() + tree_.deepest + 1);
  run_heads(n, logits);
}

void Session::accept(const int32_t* path, size_t n) {
  Busy busy(&busy_);
  if (tree_.parents.empty()) {
    fail(ARK_INVALID_ARGUMENT, "there is no draft tree to accept from", "a verified one",
         "call verify_tree first");
  }
  tree_.check_path(path, n);
  const auto count = static_cast<int64_t>(n);
  const int64_t past = length();
  if (!tree_.is_chain && n > 0) {
    for (size_t cache = 0; cache < caches_.size(); cache++) {
      if (model_->plan().caches[cache].kind == CacheKind::compressed) continue;
      CacheStore target = store(cache);
      // Ascending: an accepted token never lies before the place that it moves to.
      for (int64_t i = 0; i < count; i++) {
        if (path[i] != i) copy_token(target, past + path[i], past + i);
      }
    }
    update_caches(count, past + count);
  }
  const size_t drafts = tree_.parents.size();
  tree_ = {};
  if (n == 0) return;
  kept_row_ = path[n - 1];
  // A device keeps the blocks of the last draft alone.
  kept_length_ = device_ && static_cast<size_t>(kept_row_) + 1 != drafts ? 0 : past + count;
  length_.store(past + count, std::memory_order_relaxed);
}

void Session::fill_random(size_t length, uint64_t seed) {
  Busy busy(&busy_);
  if (this->length() != 0) {
    fail(ARK_INVALID_ARGUMENT, "the session holds " + std::to_string(this->length()) + " tokens",
         "an empty one", "roll back to length 0");
  }
  if (device_) refuse_on_device("caches filled with random numbers");
  if (length > static_cast<size_t>(options_.context)) {
    fail(ARK_CONTEXT_OVERFLOW, std::to_string(length) + " tokens",
         "at most " + std::to_string(options_.context), "load with a larger context");
  }
  tree_ = {};
  const auto total = static_cast<int64_t>(length);
  if (total == 0) return;
  const int64_t used = (total + kKvBlock - 1) / kKvBlock;
  for (size_t cache = 0; cache < caches_.size(); cache++) {
    if (model_->plan().caches[cache].kind == CacheKind::compressed) continue;
    struct Work {
      CacheStore target;
      int64_t used;
      uint64_t stream;
    } work{store(cache), used, seed * 0x9e3779b97f4a7c15u + (uint64_t{cache} << 40)};
    auto fill = [](void* user, int64_t index, int32_t) {
      const Work& w = *static_cast<const Work*>(user);
      fill_block(w.target, index / w.used, index % w.used, w.stream + static_cast<uint64_t>(index));
    };
    pool_.run(used * work.target.kv_heads, fill, &work);
  }
  try {
    for (int64_t done = 0; done < total; done = this->length()) {
      if (cancelled()) fail(ARK_CANCELLED, "the fill was cancelled", "", "");
      int64_t rows = std::min(model_->plan().chunk, total - done);
      update_caches(rows, total);
      length_.store(done + rows, std::memory_order_relaxed);
    }
  } catch (...) {
    length_.store(0, std::memory_order_relaxed);
    throw;
  }
}

}  // namespace ark
