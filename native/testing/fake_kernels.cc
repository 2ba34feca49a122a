// The kernels of the tiny model in fixture.h.
#include <algorithm>
#include <chrono>
#include <thread>

#include "fixture.h"
#include "kernel.h"

namespace ark::testing {

std::atomic<int> history_delay{0};

namespace {

float* row(const Operand& operand, int64_t index) {
  return static_cast<float*>(operand.data) + index * operand.stride;
}

float packed(const Operand& codes, int64_t output, int64_t input) {
  const auto* values = static_cast<const float*>(codes.data);
  return values[(output / 16 * codes.shape[1] + input) * 16 + output % 16];
}

bool matrix(const Operand& o, DType dtype, int64_t rows) {
  return o.rank == 2 && o.dtype == dtype && o.shape[0] >= rows;
}

const char* const kEmbedOperands[] = {"ids", "codes", "y", nullptr};
const char* const kNone[] = {nullptr};

const char* embed_check(const Call& call) {
  const Operand* o = call.operands;
  if (!matrix(o[0], DType::i32, call.tokens) || o[0].shape[1] != 1)
    return "ids is not i32 [tokens, 1]";
  if (!matrix(o[1], DType::f32, 1)) return "codes is not an f32 matrix";
  if (!matrix(o[2], DType::f32, call.tokens) || o[2].shape[1] != o[1].shape[1]) {
    return "y is not f32 [tokens, columns of codes]";
  }
  return nullptr;
}

void embed_run(const Call& call) {
  const Operand* o = call.operands;
  for (int64_t t = 0; t < call.tokens; t++) {
    int32_t id = static_cast<const int32_t*>(o[0].data)[t * o[0].stride];
    for (int64_t c = 0; c < o[1].shape[1]; c++) row(o[2], t)[c] = packed(o[1], id, c);
  }
}

const char* const kHistoryOperands[] = {"x", "key", "y", nullptr};
const char* const kHistoryAttributes[] = {"period", "activations=0", nullptr};

const char* history_check(const Call& call) {
  const Operand* o = call.operands;
  if (!matrix(o[0], DType::f32, call.tokens) || !matrix(o[2], DType::f32, call.tokens) ||
      o[0].shape[1] != o[2].shape[1]) {
    return "x and y are not f32 [tokens, columns]";
  }
  if (o[1].rank != 4 || (o[1].dtype != DType::f32 && o[1].dtype != DType::f16)) {
    return "key is not a key cache";
  }
  if (o[1].shape[2] != o[0].shape[1]) return "key has another width than x";
  if (!(call.attributes[0] >= 1)) return "period is below 1";
  return nullptr;
}

struct History {
  const Call* call;
};

void history_item(void* user, int64_t column, int32_t) {
  const Call& call = *static_cast<History*>(user)->call;
  const Operand* o = call.operands;
  const int64_t period = static_cast<int64_t>(call.attributes[0]);
  const int64_t width = o[1].shape[2];
  // The values are small integers, so a 16-bit cache may simply hold them as such.
  auto slot = [&](int64_t position) {
    return (position / 64 * width + column) * 64 + position % 64;
  };
  const bool wide = o[1].dtype == DType::f32;
  auto* floats = static_cast<float*>(o[1].data);
  auto* shorts = static_cast<int16_t*>(o[1].data);
  for (int64_t t = 0; t < call.tokens; t++) {
    float value = row(o[0], t)[column];
    if (wide) {
      floats[slot(call.past + t)] = value;
    } else {
      shorts[slot(call.past + t)] = static_cast<int16_t>(value);
    }
    float sum = 0;
    auto count = [&](int64_t at, int64_t position) {
      float old = wide ? floats[slot(at)] : static_cast<float>(shorts[slot(at)]);
      sum += static_cast<float>(position % period + 1) * old;
    };
    for (int64_t i = 0; i < call.past; i++) count(i, i);
    for (int64_t j = 0; j <= t; j++) {
      bool seen = !call.ancestors || (call.ancestors[t] >> j & 1);
      if (seen) count(call.past + j, call.past + (call.depths ? call.depths[j] : j));
    }
    row(o[2], t)[column] = sum;
  }
}

void history_run(const Call& call) {
  if (int delay = history_delay.load()) {
    std::this_thread::sleep_for(std::chrono::microseconds(delay));
  }
  History history{&call};
  call.parallel.run(call.parallel.pool, call.operands[1].shape[2], history_item, &history);
}

size_t history_scratch(const Call& call) { return static_cast<size_t>(call.total); }

const char* const kSelectOperands[] = {"y", nullptr};
const char* const kSelectAttributes[] = {"block_size", nullptr};

const char* select_check(const Call& call) {
  if (!matrix(call.operands[0], DType::i32, call.tokens)) return "y is not i32 [tokens, columns]";
  if (!(call.attributes[0] >= 1)) return "block_size is below 1";
  return nullptr;
}

// The newest blocks, as many as there is room for; the first four positions are dense.
void select_run(const Call& call) {
  const Operand& y = call.operands[0];
  for (int64_t t = 0; t < call.tokens; t++) {
    int32_t* out = static_cast<int32_t*>(y.data) + t * y.stride;
    int64_t position = call.past + (call.depths ? call.depths[t] : t);
    auto last = static_cast<int32_t>(position / static_cast<int64_t>(call.attributes[0]));
    auto count = std::min<int32_t>(static_cast<int32_t>(y.shape[1]) - 1, last + 1);
    out[0] = position < 4 ? -1 : count;
    for (int32_t i = 0; i < count; i++) out[1 + i] = last - count + 1 + i;
  }
}

const char* const kHeadOperands[] = {"x", "codes", "?residual", "y", nullptr};

const char* head_check(const Call& call) {
  const Operand* o = call.operands;
  if (!matrix(o[0], DType::f32, call.tokens) || !matrix(o[1], DType::f32, 1) ||
      !matrix(o[3], DType::f32, call.tokens)) {
    return "x, codes and y are not f32 matrices";
  }
  if (o[0].shape[1] != o[1].shape[1] || o[3].shape[1] != o[1].shape[0]) {
    return "x, codes and y do not fit together";
  }
  return o[2].data ? "residual is not supported" : nullptr;
}

void head_run(const Call& call) {
  const Operand* o = call.operands;
  for (int64_t t = 0; t < call.tokens; t++) {
    for (int64_t n = 0; n < o[1].shape[0]; n++) {
      float sum = 0;
      for (int64_t k = 0; k < o[1].shape[1]; k++) sum += row(o[0], t)[k] * packed(o[1], n, k);
      row(o[3], t)[n] = sum;
    }
  }
}

const KernelEntry kEntries[] = {
    {"test_embed", Isa::scalar, kEmbedOperands, kNone, embed_check, nullptr, embed_run},
    {"test_history", Isa::scalar, kHistoryOperands, kHistoryAttributes, history_check,
     history_scratch, history_run},
    {"test_select", Isa::scalar, kSelectOperands, kSelectAttributes, select_check, nullptr,
     select_run},
    {"test_head", Isa::scalar, kHeadOperands, kNone, head_check, nullptr, head_run},
};
const KernelRegistrar kRegistrars[] = {KernelRegistrar(kEntries[0]), KernelRegistrar(kEntries[1]),
                                       KernelRegistrar(kEntries[2]), KernelRegistrar(kEntries[3])};

}  // namespace
}  // namespace ark::testing
