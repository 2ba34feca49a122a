#include "session.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "busy.h"
#include "error.h"

namespace ark {

void Session::set_trace(ark_trace_fn trace, void* user) {
  Busy busy(&busy_);
  trace_ = trace;
  trace_user_ = user;
  if (!device_) return;
  DeviceRun::Trace forward;
  if (trace) {
    forward = [trace, user](const LaunchStep& step, double seconds, const float* values,
                            int64_t rows, int64_t columns) {
      trace(user, step.kernel.c_str(), step.stage.c_str(), seconds, values,
            static_cast<size_t>(rows), static_cast<size_t>(columns), static_cast<size_t>(columns));
    };
  }
  device_->set_trace(std::move(forward));
}

void Session::check_tokens(const int32_t* tokens, size_t n) const {
  int64_t length = this->length();
  if (n == 0) fail(ARK_INVALID_ARGUMENT, "no tokens to append", "at least one", "");
  if (n > static_cast<size_t>(options_.context - length)) {
    fail(ARK_CONTEXT_OVERFLOW,
         std::to_string(n) + " tokens after " + std::to_string(length) + " in a context of " +
             std::to_string(options_.context),
         "at most " + std::to_string(options_.context - length),
         "shorten the prompt or load with a larger context");
  }
  for (size_t i = 0; i < n; i++) {
    if (tokens[i] < 0 || tokens[i] >= id_limit_) {
      fail(ARK_INVALID_ARGUMENT, "token id " + std::to_string(tokens[i]),
           "0 to " + std::to_string(id_limit_ - 1), "");
    }
  }
}

void Session::append(const int32_t* tokens, size_t n, bool all_logits, float* logits) {
  Busy busy(&busy_);
  check_tokens(tokens, n);
  tree_ = {};
  run_tokens(tokens, n, all_logits, logits);
}

void Session::run_tokens(const int32_t* tokens, size_t n, bool all_logits, float* logits) {
  const Plan& plan = model_->plan();
  const int64_t before = length();
  const auto count = static_cast<int64_t>(n);
  const auto vocab = static_cast<int64_t>(model_->manifest().vocab_size);
  kept_length_ = 0;
  kept_row_ = 0;
  try {
    for (int64_t done = 0; done < count;) {
      int64_t rows = std::min(plan.chunk, count - done);
      run_chunk(tokens + done, rows, before + count);
      if (logits && all_logits) {
        run_heads(rows, logits + done * vocab);
      } else if (logits && done + rows == count) {
        run_head(rows - 1, 1, logits);
      }
      done += rows;
      length_.store(before + done, std::memory_order_relaxed);
    }
  } catch (...) {
    length_.store(before, std::memory_order_relaxed);
    throw;
  }
  kept_length_ = before + count;
}

void Session::run_chunk(const int32_t* tokens, int64_t n, int64_t total) {
  if (device_) return device_->run_body(tokens, n, length(), total);
  std::memcpy(buffer(model_->plan().token_ids), tokens, static_cast<size_t>(n) * sizeof(int32_t));
  run_steps(&bound_.body, n, total);
}

void Session::run_head(int64_t first_row, int64_t rows, float* logits) {
  if (device_) {
    device_->run_head(first_row, rows, logits);
    return model_->wait_for_check();
  }
  const Plan& plan = model_->plan();
  auto row_bytes = static_cast<size_t>(plan.buffers[plan.head_input].columns) * sizeof(float);
  std::memcpy(buffer(plan.head_rows),
              buffer(plan.head_input) + static_cast<size_t>(first_row) * row_bytes,
              static_cast<size_t>(rows) * row_bytes);
  run_steps(&bound_.head, rows, length() + first_row + rows);
  model_->wait_for_check();
  std::memcpy(logits, buffer(plan.logits),
              static_cast<size_t>(rows * plan.buffers[plan.logits].columns) * sizeof(float));
}

void Session::run_heads(int64_t rows, float* logits) {
  const Plan& plan = model_->plan();
  for (int64_t row = 0; row < rows; row += plan.output_rows) {
    run_head(row, std::min(plan.output_rows, rows - row),
             logits + row * model_->manifest().vocab_size);
  }
}

Call Session::make_call(int64_t rows, int64_t total) {
  Call call{};
  call.tokens = rows;
  call.past = length();
  call.total = total;
  call.parallel = pool_.parallel();
  call.scratch = scratch_;
  return call;
}

void Session::run_steps(std::vector<BoundStep>* steps, int64_t rows, int64_t total) {
  Call call = make_call(rows, total);
  if (tree_running_ && steps == &bound_.body) {
    call.ancestors = tree_.ancestors.data();
    call.depths = tree_.depths.data();
  }
  for (BoundStep& step : *steps) {
    if (cancelled()) fail(ARK_CANCELLED, "the append was cancelled", "", "");
    run_step(&step, &call);
  }
}

void Session::run_step(BoundStep* step, Call* call) {
  for (size_t i = 0; i < step->operands.size(); i++) {
    if (step->moving_rows[i]) step->operands[i].shape[0] = call->tokens;
  }
  call->operands = step->operands.data();
  call->attributes = step->attributes.data();
  if (trace_) {
    auto start = std::chrono::steady_clock::now();
    compute(step, *call);
    std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    report(*step, call->tokens, passed.count());
  } else {
    compute(step, *call);
  }
  if (step->keep >= 0) keep_rows(*step, call->tokens);
}

void Session::compute(BoundStep* step, const Call& call) {
  // Only the library's kernels know trees of draft tokens.
  if (step->compiled && !call.ancestors && step->compiled->wanted(call.tokens)) {
    step->compiled->run(call);
  } else {
    step->kernel->run(call);
  }
}

void Session::report(const BoundStep& step, int64_t rows, double seconds) const {
  const float* values = nullptr;
  size_t columns = 0;
  size_t stride = 0;
  size_t shown = 0;
  if (step.output >= 0) {
    const Operand& output = step.operands[static_cast<size_t>(step.output)];
    if (output.data && output.dtype == DType::f32 && output.rank == 2) {
      values = static_cast<const float*>(output.data);
      shown = static_cast<size_t>(std::min(rows, output.shape[0]));
      columns = static_cast<size_t>(output.shape[1]);
      stride = static_cast<size_t>(output.stride);
    }
  }
  trace_(trace_user_, step.plan->kernel.c_str(), step.plan->stage.c_str(), seconds, values, shown,
         columns, stride);
}

void Session::keep_rows(const BoundStep& step, int64_t rows) {
  const Operand& operand = step.operands[static_cast<size_t>(step.keep)];
  Kept& kept = kept_[static_cast<size_t>(step.plan->keep_layer)];
  const int64_t first = rows - kept_rows_;
  for (int64_t i = 0; i < kept_rows_; i++) {
    const auto* data = static_cast<const int32_t*>(operand.data) + (first + i) * operand.stride;
    std::copy_n(data, kept.columns, kept.rows.data() + static_cast<size_t>(i) * kept.columns);
  }
}

void Session::rollback(size_t length) {
  Busy busy(&busy_);
  if (length > static_cast<size_t>(this->length())) {
    fail(ARK_INVALID_ARGUMENT, "rollback to length " + std::to_string(length),
         "at most the session's " + std::to_string(this->length()), "");
  }
  tree_ = {};
  // Caches need no change: every position is written again before it is read.
  length_.store(static_cast<int64_t>(length), std::memory_order_relaxed);
}

std::vector<int32_t> Session::selected_blocks(int32_t layer, int32_t kv_head) const {
  const Manifest& manifest = model_->manifest();
  if (layer < 0 || layer >= manifest.layers || kv_head < 0 || kv_head >= manifest.kv_heads) {
    fail(ARK_INVALID_ARGUMENT,
         "layer " + std::to_string(layer) + ", key-value head " + std::to_string(kv_head),
         "below " + std::to_string(manifest.layers) + " and " + std::to_string(manifest.kv_heads),
         "");
  }
  if (kept_length_ == 0) {
    fail(ARK_INVALID_ARGUMENT, "no token has been appended", "an append before this call", "");
  }
  const Kept& kept = kept_[static_cast<size_t>(layer)];
  std::vector<int32_t> blocks;
  if (kept.present) {
    size_t width = kept.columns / static_cast<size_t>(manifest.kv_heads);
    std::vector<int32_t> read;
    if (device_) read = device_->kept_row(layer);
    const int32_t* row =
        device_ ? read.data() : kept.rows.data() + static_cast<size_t>(kept_row_) * kept.columns;
    const int32_t* part = row + width * static_cast<size_t>(kv_head);
    if (part[0] >= 0) {
      size_t count = std::min(static_cast<size_t>(part[0]), width - 1);
      blocks.assign(part + 1, part + 1 + count);
      return blocks;
    }
  }
  for (int64_t block = 0; block * kept.block_size < kept_length_; block++) {
    blocks.push_back(static_cast<int32_t>(block));
  }
  return blocks;
}

}  // namespace ark
