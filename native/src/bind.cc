#include "bind.h"

#include <algorithm>
#include <locale>
#include <sstream>

#include "error.h"
#include "isa.h"
#include "kv_layout.h"
#include "thread_pool.h"

namespace ark {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kMostScratch = int64_t{1} << 40;

// Stands for memory that is not there yet: checks look at addresses only to tell absent operands.
alignas(64) char placeholder[64];

[[noreturn]] void refuse(const PlanStep& step, const std::string& found,
                         const std::string& expected) {
  fail(ARK_INVALID_BUNDLE, step.place + ": " + found, expected, "compile the bundle again");
}

std::string attribute_name(const std::string& declared) {
  return declared.substr(0, declared.find('='));
}

double attribute_default(const std::string& declared) {
  std::istringstream stream(declared.substr(declared.find('=') + 1));
  stream.imbue(std::locale::classic());
  double value = 0;
  stream >> value;
  return value;
}

class Binder {
 public:
  Binder(const Model& model, const SessionOptions& options, const BoundMemory& memory)
      : model_(model), plan_(model.plan()), options_(options), memory_(memory) {}

  void bind_list(const std::vector<PlanStep>& steps, int64_t rows, std::vector<BoundStep>* out) {
    for (const PlanStep& step : steps) out->push_back(bind_step(step, rows));
  }

  // Binds the kernels that the bundle brings, where there are some and the session wants them.
  void bind_compiled(BoundPlan* bound) {
    const CompiledPlan* plan = model_.compiled();
    if (!plan || options_.kernels == ARK_KERNELS_BUILTIN) return;
    int64_t capacity = round_up(options_.context, kKvBlock);
    bound->compiled =
        std::make_unique<CompiledMemory>(compiled_memory(*plan, capacity, options_.threads));
    if (bound->compiled->bytes > kMostScratch) {
      fail(ARK_INVALID_BUNDLE, "kernels.json: more scratch than 2^40 bytes", "less",
           "compile the bundle again");
    }
    scratch_ = std::max(scratch_, bound->compiled->bytes);
    const CompiledLibrary& library = model_.compiled_library();
    if (options_.kernels == ARK_KERNELS_TUNED) bound->tuning = model_.tuning();
    auto bind_all = [&](const std::vector<CompiledStep>& from, std::vector<BoundStep>* steps) {
      for (size_t i = 0; i < from.size(); i++) {
        BoundStep& step = (*steps)[i];
        if (from[i].launches.empty() || !reads_its_caches(*plan, *step.plan)) continue;
        step.compiled = std::make_unique<CompiledCall>(*plan, from[i], library, data_of(*step.plan),
                                                       *bound->compiled, capacity);
        step.compiled->choose_by(bound->tuning.get(), options_.activations);
      }
    };
    bind_all(plan->body, &bound->body);
    bind_all(plan->head, &bound->head);
  }

  int64_t scratch() const { return scratch_; }

 private:
  // Whether the caches have the type that the step was compiled for.
  bool reads_its_caches(const CompiledPlan& plan, const PlanStep& step) const {
    DType own = plan.half_caches ? DType::f16 : DType::f32;
    return options_.cache_dtype == own ||
           std::none_of(step.operands.begin(), step.operands.end(), [](const PlanOperand& operand) {
             return operand.kind == PlanOperand::Kind::cache;
           });
  }

  // Where the weights, buffers and caches of a step begin.
  std::vector<void*> data_of(const PlanStep& step) const {
    std::vector<void*> data;
    for (const PlanOperand& operand : step.operands) {
      PlanOperand whole = operand;
      whole.column = 0;
      data.push_back(make_operand(whole).data);
    }
    return data;
  }

  BoundStep bind_step(const PlanStep& step, int64_t rows) {
    BoundStep bound{};
    bound.plan = &step;
    bound.kernel = find_kernel(step.kernel.c_str(), options_.isa);
    if (!bound.kernel) {
      refuse(step, "no kernel of that name in this runtime", "one that it has");
    }
    bind_operands(step, &bound);
    bind_attributes(step, &bound);
    check(step, rows, bound);
    return bound;
  }

  void bind_operands(const PlanStep& step, BoundStep* bound) {
    size_t found = 0;
    for (const char* const* name = bound->kernel->operands; *name; name++) {
      bool optional = **name == '?';
      std::string plain = *name + (optional ? 1 : 0);
      const PlanOperand* operand = step.operand(plain);
      if (!operand && !optional) refuse(step, "no operand " + quote(plain), "that operand");
      int index = static_cast<int>(bound->operands.size());
      if (operand) {
        found++;
        if (plain == "y" || (plain == "x" && bound->output < 0)) bound->output = index;
        if (step.keep_operand >= 0 &&
            operand == &step.operands[static_cast<size_t>(step.keep_operand)]) {
          bound->keep = index;
        }
      }
      bound->operands.push_back(operand ? make_operand(*operand) : absent());
      bound->moving_rows.push_back(operand && operand->kind == PlanOperand::Kind::buffer &&
                                   plan_.buffers[operand->index].rows != Rows::fixed);
    }
    if (found == step.operands.size()) return;
    for (const PlanOperand& operand : step.operands) {
      bool known = false;
      for (const char* const* name = bound->kernel->operands; *name; name++) {
        known = known || operand.name == *name + (**name == '?' ? 1 : 0);
      }
      if (!known) refuse(step, "an unknown operand " + quote(operand.name), "the kernel's own");
    }
  }

  static Operand absent() { return {nullptr, {1, 1, 1, 1}, 0, 0, DType::f32}; }

  Operand make_operand(const PlanOperand& operand) const {
    if (operand.kind == PlanOperand::Kind::weight) {
      const PlanWeight& weight = plan_.weights[operand.index];
      // Kernels only read operands that may be weights (check_dataflow sees to it).
      char* data =
          memory_.weights ? const_cast<char*>(memory_.weights) + weight.offset : placeholder;
      return {data,
              {weight.shape[0], weight.shape[1], 1, 1},
              weight.shape[1],
              weight.rank,
              weight.dtype};
    }
    if (operand.kind == PlanOperand::Kind::cache) {
      CacheShape shape = cache_shape(plan_.caches[operand.index], options_);
      char* data = memory_.caches.empty() ? placeholder : memory_.caches[operand.index];
      return {data,
              {shape.dims[0], shape.dims[1], shape.dims[2], shape.dims[3]},
              0,
              shape.rank,
              shape.dtype};
    }
    const PlanBuffer& buffer = plan_.buffers[operand.index];
    char* data = placeholder;
    if (memory_.arena) {
      data = memory_.arena + buffer.offset + operand.column * dtype_bits(buffer.dtype) / 8;
    }
    return {data, {buffer.max_rows, operand.columns, 1, 1}, buffer.columns, 2, buffer.dtype};
  }

  void bind_attributes(const PlanStep& step, BoundStep* bound) {
    std::string wrong;
    if (!match_attributes(*bound->kernel, step.attributes, &bound->attributes, &wrong)) {
      refuse(step, wrong, "the kernel's own attributes");
    }
    for (size_t i = 0; bound->kernel->attributes[i]; i++) {
      // A plan may ask for fp32 activations where a session would use int8, not the reverse.
      if (attribute_name(bound->kernel->attributes[i]) == "activations") {
        bound->attributes[i] = std::max<double>(bound->attributes[i], options_.activations);
      }
    }
  }

  void check(const PlanStep& step, int64_t rows, const BoundStep& bound) {
    int64_t capacity = round_up(options_.context, kKvBlock);
    Call call{};
    call.operands = bound.operands.data();
    call.attributes = bound.attributes.data();
    call.tokens = rows;
    call.past = std::max<int64_t>(0, capacity - rows);
    call.total = capacity;
    call.parallel.threads = options_.threads;
    if (bound.kernel->check) {
      const char* wrong = bound.kernel->check(call);
      if (wrong) refuse(step, wrong, "a step that its kernel accepts");
    }
    if (!bound.kernel->scratch) return;
    size_t bytes = bound.kernel->scratch(call);
    if (bytes > static_cast<size_t>(kMostScratch)) {
      refuse(step, std::to_string(bytes) + " bytes of scratch", "at most 2^40");
    }
    scratch_ = std::max(scratch_, round_up(static_cast<int64_t>(bytes), kAlignment));
  }

  const Model& model_;
  const Plan& plan_;
  const SessionOptions& options_;
  const BoundMemory& memory_;
  int64_t scratch_ = 0;
};

[[noreturn]] void bad_option(const std::string& found, const std::string& expected) {
  fail(ARK_INVALID_ARGUMENT, found, expected, "");
}

DType cache_dtype(int32_t kv_type) {
  switch (kv_type) {
    case ARK_KV_F16:
      return DType::f16;
    case ARK_KV_F32:
      return DType::f32;
    case ARK_KV_I8:
      return DType::i8;
    case ARK_KV_I4:
      return DType::u4;
    default:
      bad_option("KV cache type " + std::to_string(kv_type),
                 "-1 (the bundle's), 0 (fp16), 1 (fp32), 2 (int8) or 3 (int4)");
  }
}

}  // namespace

Isa choose_isa(const char* name) {
  const std::vector<Isa>& usable = usable_isas();
  if (!name || !*name) return usable.front();
  Isa isa;
  if (parse_isa(name, &isa) && std::find(usable.begin(), usable.end(), isa) != usable.end()) {
    return isa;
  }
  std::string list;
  for (Isa entry : usable) list += (list.empty() ? "" : ", ") + std::string(isa_name(entry));
  bad_option("the kernel set " + quote(name) + " is not usable here", "one of " + list);
}

bool match_attributes(const KernelEntry& kernel,
                      const std::vector<std::pair<std::string, double>>& given,
                      std::vector<double>* values, std::string* wrong) {
  size_t found = 0;
  for (const char* const* declared = kernel.attributes; *declared; declared++) {
    std::string name = attribute_name(*declared);
    auto match = std::find_if(given.begin(), given.end(),
                              [&](const auto& entry) { return entry.first == name; });
    if (match != given.end()) {
      values->push_back(match->second);
      found++;
    } else if (std::string(*declared) != name) {
      values->push_back(attribute_default(*declared));
    } else {
      *wrong = "no attribute " + quote(name);
      return false;
    }
  }
  if (found == given.size()) return true;
  for (const auto& entry : given) {
    bool known = false;
    for (const char* const* declared = kernel.attributes; *declared; declared++) {
      known = known || attribute_name(*declared) == entry.first;
    }
    if (!known) *wrong = "an unknown attribute " + quote(entry.first);
  }
  return false;
}

SessionOptions resolve_options(const Model& model, const ark_session_options* options) {
  ark_session_options given{};
  given.kv_type = ARK_KV_DEFAULT;
  if (options) given = *options;
  const Manifest& manifest = model.manifest();
  if (given.context < 0 || given.context > manifest.context) {
    fail(ARK_INVALID_ARGUMENT, "a context of " + std::to_string(given.context) + " tokens",
         "1 to " + std::to_string(manifest.context) + ", what the bundle was compiled for",
         "compile with a larger --context");
  }
  if (given.threads < 0 || given.threads > 1024) {
    bad_option(std::to_string(given.threads) + " threads", "0 (one per core) to 1024");
  }
  if (given.activations != ARK_ACTIVATIONS_INT8 && given.activations != ARK_ACTIVATIONS_F32) {
    bad_option("activations " + std::to_string(given.activations), "0 (int8) or 1 (fp32)");
  }
  if (given.kernels < ARK_KERNELS_TUNED || given.kernels > ARK_KERNELS_COMPILED) {
    bad_option("kernels " + std::to_string(given.kernels),
               "0 (tuned), 1 (builtin) or 2 (compiled)");
  }
  if (given.on < ARK_ON_FASTER || given.on > ARK_ON_CPU) {
    bad_option("on " + std::to_string(given.on), "0 (faster), 1 (device) or 2 (cpu)");
  }
  if (given.on == ARK_ON_DEVICE && !model.launches()) {
    fail(ARK_INVALID_ARGUMENT, "this bundle holds nothing for a device", "one compiled for it",
         "run it on the CPU, or compile with another --target");
  }
  if (given.on == ARK_ON_CPU && model.launches() && !model.host_plan()) {
    fail(ARK_INVALID_ARGUMENT, "this bundle holds no plan for the CPU", "plan.cpu.json",
         "run it on its device, or compile with --target cpu");
  }
  const LaunchPlan* launches = model.launches();
  if (launches && given.on != ARK_ON_CPU) {
    int32_t own = launches->half_caches ? ARK_KV_F16 : ARK_KV_F32;
    if (given.kv_type != ARK_KV_DEFAULT && given.kv_type != own) {
      bad_option("KV cache type " + std::to_string(given.kv_type),
                 "-1 or " + std::to_string(own) + ", what the kernels were compiled for");
    }
    given.kv_type = own;
  }
  return {given.context ? given.context : manifest.context,
          given.threads ? given.threads : ThreadPool::available_cores(),
          cache_dtype(given.kv_type == ARK_KV_DEFAULT ? manifest.kv_type : given.kv_type),
          given.activations,
          choose_isa(given.isa),
          given.kernels,
          given.on};
}

DType compressed_dtype(DType cache) { return cache == DType::u4 ? DType::i8 : cache; }

CacheShape cache_shape(const PlanCache& cache, const SessionOptions& options) {
  DType dtype = options.cache_dtype;
  int64_t positions = options.context;
  if (cache.kind == CacheKind::compressed) {
    dtype = compressed_dtype(dtype);
    int64_t capacity = round_up(options.context, kKvBlock);
    positions = capacity / cache.stride + 1;
  }
  int64_t blocks = (positions + kKvBlock - 1) / kKvBlock;
  CacheShape shape{{cache.kv_heads, blocks, cache.head_dim, kKvBlock}, 4, dtype, 0};
  int64_t block_bytes = kv_key_block_bytes(dtype, cache.head_dim);
  if (cache.kind == CacheKind::value) {
    shape = {{cache.kv_heads, blocks * kKvBlock, cache.head_dim, 1}, 3, dtype, 0};
    block_bytes = kv_value_block_bytes(dtype, cache.head_dim);
  }
  // Heads and their size are below 2^17, so only the context can make this overflow.
  if (!checked_multiply(cache.kv_heads * block_bytes, blocks, &shape.bytes)) {
    fail(ARK_OUT_OF_MEMORY, "a cache beyond 2^63 bytes", "a smaller context", "");
  }
  return shape;
}

BoundPlan bind(const Model& model, const SessionOptions& options, const BoundMemory& memory) {
  BoundPlan bound;
  Binder binder(model, options, memory);
  binder.bind_list(model.plan().body, model.plan().chunk, &bound.body);
  binder.bind_list(model.plan().head, model.plan().output_rows, &bound.head);
  binder.bind_compiled(&bound);
  bound.scratch_bytes = binder.scratch();
  return bound;
}

}  // namespace ark
