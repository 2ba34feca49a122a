// Making a session: what it runs on, and the memory that it takes.
#include <algorithm>
#include <utility>

#include "error.h"
#include "session.h"

namespace ark {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kBlock = 64;
// Large pages are asked for only where a head's own part of a cache spans several of them, so that
// an almost empty cache stays almost free.
constexpr int64_t kHugeHead = int64_t{4} << 20;

int64_t arena_bytes(const Plan& plan, int64_t scratch) {
  return round_up(plan.arena_bytes, kAlignment) + scratch;
}

}  // namespace

MemoryPlan plan_memory(const Model& model, const SessionOptions& options) {
  MemoryPlan memory;
  memory.weights = static_cast<int64_t>(model.weights_bytes());
  memory.tokenizer = static_cast<int64_t>(model.vocabulary().file_bytes());
  if (model.launches() && options.on != ARK_ON_CPU) {
    DeviceMemory device = device_memory(*model.launches(), round_up(options.context, kBlock));
    memory.kv_cache = device.key_values;
    memory.compressed_keys = device.compressed_keys;
    memory.arena = device.slots;
    return memory;
  }
  if (model.host_plan()) memory.weights = model.host_plan()->bytes;
  const Plan& plan = model.plan();
  for (const PlanCache& cache : plan.caches) {
    int64_t bytes = cache_shape(cache, options).bytes;
    (cache.kind == CacheKind::compressed ? memory.compressed_keys : memory.kv_cache) += bytes;
  }
  memory.arena = arena_bytes(plan, bind(model, options, {}).scratch_bytes);
  return memory;
}

Session::Session(std::shared_ptr<const Model> model, const SessionOptions& options)
    : model_(std::move(model)), options_(options), pool_(options.threads) {
  id_limit_ = model_->manifest().vocab_size;
  kept_.resize(static_cast<size_t>(model_->manifest().layers));
  if (model_->launches()) {
    choice_ = choose(model_, options_, &host_weights_);
    if (choice_.on == ARK_ON_DEVICE && open_chosen_device()) return;
    host_weights_ = model_->host_weights(&pool_);
  }
  open_host();
}

// False where the CPU takes the place of a device that cannot be opened.
bool Session::open_chosen_device() {
  try {
    open_device();
  } catch (const Error& error) {
    if (!may_replace(*model_, options_, error)) throw;
    choice_.on = ARK_ON_CPU;
    choice_.why = error.what();
    return false;
  }
  choice_.device = device_->name();
  return true;
}

void Session::open_host() {
  const Plan& plan = model_->plan();
  int64_t scratch = bind(*model_, options_, {}).scratch_bytes;
  BoundMemory memory;
  memory.weights = host_weights_ ? host_weights_->data() : model_->weights();
  for (const PlanCache& cache : plan.caches) {
    int64_t bytes = cache_shape(cache, options_).bytes;
    caches_.emplace_back(static_cast<size_t>(bytes), "KV cache",
                         bytes / cache.kv_heads >= kHugeHead);
    memory.caches.push_back(caches_.back().data());
  }
  arena_ = Region(static_cast<size_t>(arena_bytes(plan, scratch)), "activations", true);
  memory.arena = arena_.data();
  scratch_ = arena_.data() + round_up(plan.arena_bytes, kAlignment);
  bound_ = bind(*model_, options_, memory);

  for (const PlanStep& step : plan.body) {
    const PlanOperand* codes = step.operand("ids") ? step.operand("codes") : nullptr;
    if (codes && codes->kind == PlanOperand::Kind::weight) {
      id_limit_ = std::min(id_limit_, plan.weights[codes->index].shape[0]);
    }
    if (step.keep_operand < 0) continue;
    const PlanOperand& operand = step.operands[static_cast<size_t>(step.keep_operand)];
    Kept& kept = kept_[static_cast<size_t>(step.keep_layer)];
    kept.present = true;
    kept.block_size = std::max<int64_t>(
        1, static_cast<int64_t>(std::min(step.attribute("block_size", kBlock), 1048576.0)));
    kept.columns = static_cast<size_t>(operand.columns);
    kept.rows.assign(kept.columns * static_cast<size_t>(most_draft_tokens()), 0);
  }
}

void Session::open_device() {
  const LaunchPlan& plan = *model_->launches();
  const DeviceModel device{&plan,
                           model_->weights(),
                           static_cast<int64_t>(model_->weights_bytes()),
                           model_->source().data(),
                           model_->source().size(),
                           model_->manifest().vocab_size,
                           model_->manifest().context,
                           model_->id()};
  device_ = device_kind(*model_).open(device, round_up(options_.context, kBlock), &cancelled_);
  for (const LaunchStep& step : plan.body) {
    if (step.keep_layer < 0) continue;
    Kept& kept = kept_[static_cast<size_t>(step.keep_layer)];
    kept.present = true;
    kept.block_size = step.block_size;
    kept.columns = static_cast<size_t>(step.output.columns);
  }
}

void Session::refuse_on_device(const std::string& what) const {
  fail(ARK_INVALID_ARGUMENT, what + " on " + device_->name(), "a session on the CPU",
       model_->host_plan() ? "run with --on cpu" : "compile with --target cpu");
}

int64_t Session::allocated_bytes() const {
  if (device_) {
    MemoryPlan memory = plan_memory(*model_, options_);
    return memory.kv_cache + memory.compressed_keys + memory.arena;
  }
  size_t bytes = arena_.size();
  for (const Region& cache : caches_) bytes += cache.size();
  return static_cast<int64_t>(bytes);
}

}  // namespace ark
