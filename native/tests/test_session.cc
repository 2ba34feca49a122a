#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "arkinfer.h"
#include "check.h"
#include "fixture.h"
#include "isa.h"

using namespace ark;
using namespace ark::testing;

namespace {

std::vector<int32_t> some_tokens(size_t n) {
  std::vector<int32_t> tokens(n);
  for (size_t i = 0; i < n; i++) tokens[i] = static_cast<int32_t>((i * 11 + i / 3) % kVocab);
  return tokens;
}

std::vector<int32_t> prefix(const std::vector<int32_t>& tokens, size_t n) {
  return {tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(n)};
}

std::vector<float> append(Session* session, const std::vector<int32_t>& tokens, bool all = false) {
  std::vector<float> logits((all ? tokens.size() : 1) * kVocab);
  session->append(tokens.data(), tokens.size(), all, logits.data());
  return logits;
}

struct Delay {
  explicit Delay(int microseconds) { history_delay = microseconds; }
  ~Delay() { history_delay = 0; }
};

}  // namespace

TEST(session_computes_the_model) {
  for (int32_t threads : {1, 3}) {
    Session session(tiny_model(), tiny_options(kContext, threads));
    std::vector<int32_t> tokens = some_tokens(11);  // chunks of 4, 4 and 3
    std::vector<float> all = append(&session, tokens, true);
    for (size_t i = 0; i < tokens.size(); i++) {
      std::vector<float> expected = expected_logits(prefix(tokens, i + 1));
      CHECK(std::memcmp(&all[i * kVocab], expected.data(), kVocab * sizeof(float)) == 0);
    }
    CHECK(session.length() == 11);
  }
}

TEST(session_does_not_depend_on_how_tokens_arrive) {
  std::vector<int32_t> tokens = some_tokens(70);
  std::vector<float> expected = expected_logits(tokens);
  for (size_t step : {size_t{1}, size_t{3}, size_t{4}, size_t{5}, size_t{70}}) {
    Session session(tiny_model(), tiny_options());
    std::vector<float> logits;
    for (size_t at = 0; at < tokens.size(); at += step) {
      size_t end = std::min(tokens.size(), at + step);
      logits = append(&session, {tokens.begin() + static_cast<std::ptrdiff_t>(at),
                                 tokens.begin() + static_cast<std::ptrdiff_t>(end)});
    }
    CHECK(logits == expected);
  }
  Session silent(tiny_model(), tiny_options());
  silent.append(tokens.data(), 69, false, nullptr);
  CHECK(append(&silent, {tokens.back()}) == expected);
}

TEST(session_rolls_back) {
  Session session(tiny_model(), tiny_options());
  std::vector<int32_t> tokens = some_tokens(30);
  append(&session, tokens);
  for (size_t length : {size_t{29}, size_t{17}, size_t{4}, size_t{0}}) {
    session.rollback(length);
    CHECK(session.length() == static_cast<int64_t>(length));
    std::vector<int32_t> other = prefix(tokens, length);
    other.push_back(5);
    other.push_back(9);
    CHECK(append(&session, {5, 9}) == expected_logits(other));
    session.rollback(length);
  }
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("rollback to length 1"), session.rollback(1));
}

TEST(session_refuses_and_keeps_its_length) {
  Session session(tiny_model(), tiny_options(20));
  append(&session, some_tokens(18));
  std::vector<int32_t> three{1, 2, 3};
  CHECK_ERROR(ARK_CONTEXT_OVERFLOW, PARTS("3 tokens after 18 in a context of 20", "at most 2"),
              append(&session, three));
  for (int32_t bad : {-1, kVocab, INT32_MAX, INT32_MIN}) {
    CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("token id", "0 to 31"), append(&session, {1, bad}));
  }
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("no tokens"), session.append(nullptr, 0, false, nullptr));
  CHECK(session.length() == 18);
  append(&session, {1, 2});
  CHECK(session.length() == 20);
}

TEST(session_is_cancelled_from_another_thread) {
  Delay slow(2000);
  Session session(tiny_model(), tiny_options());
  append(&session, some_tokens(6));
  std::vector<int32_t> many = some_tokens(190);  // some 50 chunks of 2 ms
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(8));
    session.cancel();
  });
  bool cancelled = false;
  try {
    append(&session, many);
  } catch (const Error& error) {
    cancelled = error.status() == ARK_CANCELLED;
  }
  other.join();
  CHECK(cancelled && session.length() == 6 && session.cancelled());
  session.clear_cancel();
  history_delay = 0;
  std::vector<int32_t> all = some_tokens(6);
  all.push_back(3);
  CHECK(append(&session, {3}) == expected_logits(all));
}

TEST(session_refuses_two_threads_at_once) {
  Delay slow(1000);
  Session session(tiny_model(), tiny_options());
  std::atomic<int> busy{0};
  std::atomic<int> done{0};
  auto work = [&] {
    try {
      append(&session, some_tokens(40));
      done++;
    } catch (const Error& error) {
      if (std::string(error.what()).find("in use by another thread") != std::string::npos) busy++;
    }
  };
  std::thread first(work);
  std::this_thread::sleep_for(std::chrono::milliseconds(3));
  work();
  first.join();
  CHECK(done == 1 && busy == 1 && session.length() == 40);
}

TEST(session_keeps_selected_blocks) {
  Session session(tiny_model(), tiny_options());
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("no token"), session.selected_blocks(0, 0));
  append(&session, some_tokens(3));
  CHECK(session.selected_blocks(0, 0) == std::vector<int32_t>{0});  // dense: every block
  append(&session, some_tokens(97));
  CHECK((session.selected_blocks(0, 0) == std::vector<int32_t>{4, 5, 6}));
  session.rollback(3);
  append(&session, {1});
  CHECK(session.selected_blocks(0, 0) == std::vector<int32_t>{0});
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("layer 1"), session.selected_blocks(1, 0));
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("head -1"), session.selected_blocks(0, -1));
}

TEST(session_traces_steps) {
  struct Seen {
    std::string names;
    std::vector<float> embedding;
    size_t rows = 0;
  } seen;
  Session session(tiny_model(), tiny_options());
  session.set_trace(
      [](void* user, const char* kernel, const char* stage, double seconds, const float* values,
         size_t rows, size_t columns, size_t stride) {
        auto* s = static_cast<Seen*>(user);
        if (seconds < 0) return;
        s->names += std::string(kernel) + "=" + stage + (values ? " " : "* ");
        if (std::string(stage) == "embedding") {
          s->rows = rows;
          s->embedding.assign(values, values + columns);
          if (stride != 4) s->rows = 99;
        }
      },
      &seen);
  append(&session, {3, 1});
  CHECK(seen.names ==
        "test_embed=embedding test_history=layers.0.output test_select=* test_head=logits ");
  CHECK(seen.rows == 2 && (seen.embedding == std::vector<float>{-2, 1, -3, 0}));
  session.set_trace(nullptr, nullptr);
  append(&session, {1});
  CHECK(seen.rows == 2);
}

TEST(memory_plan_equals_what_is_allocated) {
  std::shared_ptr<const Model> model = tiny_model();
  for (int64_t context : {1, 63, 64, 65, 200}) {
    for (DType dtype : {DType::f16, DType::f32}) {
      SessionOptions options = tiny_options(context);
      options.cache_dtype = dtype;
      MemoryPlan plan = plan_memory(*model, options);
      Session session(model, options);
      CHECK(session.allocated_bytes() == plan.kv_cache + plan.compressed_keys + plan.arena);
      int64_t blocks = (context + 63) / 64;
      int64_t element = dtype == DType::f16 ? 2 : 4;
      CHECK(plan.kv_cache == blocks * 64 * 4 * element);
      CHECK(plan.compressed_keys == 64 * 4 * element);
      CHECK(append(&session, {7}) == expected_logits({7}));
      CHECK(plan.arena == 640 + blocks * 64);  // test_history asks for a byte per token
      CHECK(plan.weights == 576 && plan.tokenizer > 0);
    }
  }
}

TEST(caches_take_the_bytes_of_their_type) {
  // 72 dimensions: 18 fours, 5 sixteens (80) and 3 groups of 32.
  PlanCache key{"key", CacheKind::key, 2, 72, 0, 0};
  PlanCache value{"value", CacheKind::value, 2, 72, 0, 0};
  PlanCache fine{"fine", CacheKind::compressed, 2, 72, 32, 16};
  struct {
    DType dtype;
    DType compressed;
    int64_t key, value, fine;  // bytes of 64 tokens of one head
  } cases[] = {
      {DType::f32, DType::f32, 64 * 72 * 4, 64 * 72 * 4, 64 * 72 * 4},
      {DType::f16, DType::f16, 64 * 72 * 2, 64 * 72 * 2, 64 * 72 * 2},
      {DType::i8, DType::i8, 64 * (72 + 4), 64 * (80 + 4), 64 * (72 + 4)},
      {DType::u4, DType::i8, 64 * 3 * 20, 64 * 3 * 20, 64 * (72 + 4)},
  };
  for (const auto& c : cases) {
    SessionOptions options = tiny_options(130);  // three blocks, and one of compressed keys
    options.cache_dtype = c.dtype;
    CHECK(cache_shape(key, options).bytes == 2 * 3 * c.key);
    CHECK(cache_shape(key, options).dtype == c.dtype);
    CHECK(cache_shape(value, options).bytes == 2 * 3 * c.value);
    CHECK(cache_shape(value, options).dims[1] == 3 * 64);
    CHECK(cache_shape(fine, options).bytes == 2 * c.fine);
    CHECK(cache_shape(fine, options).dtype == c.compressed);
  }
}

TEST(compressed_caches_hold_every_window) {
  SessionOptions options = tiny_options();
  PlanCache fine{"fine", CacheKind::compressed, 2, 8, 32, 16};
  options.context = 16;  // the capacity of 64 tokens holds 3 windows
  CHECK(cache_shape(fine, options).dims[1] == 1);
  options.context = 64 * 16 + 16;  // 1088 tokens: 67 windows
  CHECK(cache_shape(fine, options).dims[1] == 2 &&
        cache_shape(fine, options).bytes == 2 * 2 * 8 * 64 * 4);
  PlanCache value{"v", CacheKind::value, 2, 8, 0, 0};
  options.context = 65;
  CHECK(cache_shape(value, options).dims[1] == 128 && cache_shape(value, options).rank == 3);
}

TEST(abi_sessions_outlive_their_model_handle) {
  TemporaryBundle bundle;
  bundle.write(Files());
  ark_model* model = nullptr;
  CHECK(ark_model_load(bundle.path().c_str(), nullptr, &model) == ARK_OK);
  ark_session_options options{};
  options.size = sizeof(options);
  options.kv_type = ARK_KV_F32;
  options.threads = 2;
  ark_memory memory{};
  memory.size = sizeof(memory);
  CHECK(ark_model_plan_memory(model, &options, &memory) == ARK_OK && memory.weights == 576);
  ark_session* session = nullptr;
  CHECK(ark_session_create(model, &options, &session) == ARK_OK);
  ark_model_free(model);
  CHECK(ark_session_context(session) == kContext && ark_session_threads(session) == 2);
  CHECK(std::string(ark_isas()).find(ark_session_isa(session)) == 0);
  std::vector<int32_t> tokens = some_tokens(9);
  std::vector<float> logits(kVocab);
  CHECK(ark_session_append(session, tokens.data(), 9, 0, logits.data()) == ARK_OK);
  CHECK(logits == expected_logits(tokens));
  int32_t blocks[1];
  size_t count = 0;
  CHECK(ark_session_append(session, tokens.data(), 9, 0, nullptr) == ARK_OK);
  CHECK(ark_session_selected_blocks(session, 0, 0, blocks, 1, &count) == ARK_OK);
  CHECK(count == 2 && blocks[0] == 0);
  CHECK(ark_session_rollback(session, 99) == ARK_INVALID_ARGUMENT &&
        ark_session_length(session) == 18);
  ark_session_cancel(session);  // between appends: the next append starts afresh
  CHECK(ark_session_append(session, tokens.data(), 1, 0, nullptr) == ARK_OK);
  ark_session_free(session);
}

TEST(abi_refuses_bad_session_options) {
  TemporaryBundle bundle;
  bundle.write(Files());
  ark_model* model = nullptr;
  CHECK(ark_model_load(bundle.path().c_str(), nullptr, &model) == ARK_OK);
  ark_session_options good{sizeof(ark_session_options),
                           0,
                           1,
                           ARK_KV_F32,
                           ARK_ACTIVATIONS_F32,
                           "scalar",
                           ARK_KERNELS_TUNED,
                           ARK_ON_FASTER};
  auto refused = [&](auto change, const char* part) {
    ark_session_options options = good;
    change(&options);
    ark_session* session = nullptr;
    CHECK(ark_session_create(model, &options, &session) == ARK_INVALID_ARGUMENT && !session);
    CHECK(std::string(ark_last_error()).find(part) != std::string::npos);
  };
  refused([](auto* o) { o->context = 201; }, "a larger --context");
  refused([](auto* o) { o->context = -1; }, "context");
  refused([](auto* o) { o->threads = -1; }, "threads");
  refused([](auto* o) { o->threads = 1 << 20; }, "threads");
  for (int32_t type : {4, 7, -2, INT32_MIN, INT32_MAX}) {
    refused([type](auto* o) { o->kv_type = type; }, "KV cache");
    ark_session_options options = good;
    options.kv_type = type;
    ark_memory memory{};
    memory.size = sizeof(memory);
    CHECK(ark_model_plan_memory(model, &options, &memory) == ARK_INVALID_ARGUMENT);
  }
  refused([](auto* o) { o->activations = 7; }, "activations");
  refused([](auto* o) { o->kernels = 7; }, "kernels");
  refused([](auto* o) { o->isa = "mmx"; }, "'mmx' is not usable");
  refused([](auto* o) { o->size = 0; }, "size");
  ark_session* session = nullptr;
  CHECK(ark_session_create(model, &good, &session) == ARK_OK);
  CHECK(std::string(ark_session_isa(session)) == "scalar");
  ark_session_free(session);
  ark_model_free(model);
}
