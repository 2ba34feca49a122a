#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "arkinfer.h"
#include "check.h"
#include "fixture.h"
#include "generation.h"

using namespace ark;
using namespace ark::testing;

namespace {

// An executor that wants the tokens of a script, one after the other, for ever.
struct Script {
  std::vector<int32_t> wanted;
  size_t context = 100;
  std::vector<int32_t> appended{};
  size_t appends = 0;
  int32_t fail_at = -1;
  int32_t failure = 0;
};

ark_executor table(Script* script) {
  ark_executor executor{};
  executor.size = sizeof(executor);
  executor.user = script;
  executor.vocab_size = kVocab;
  executor.context = script->context;
  executor.append = [](void* user, const int32_t* tokens, size_t n, float* logits) -> int32_t {
    auto* s = static_cast<Script*>(user);
    if (static_cast<int32_t>(s->appends) == s->fail_at) return s->failure;
    s->appended.insert(s->appended.end(), tokens, tokens + n);
    std::fill(logits, logits + kVocab, 0.0f);
    logits[s->wanted[s->appends++ % s->wanted.size()]] = 9.0f;
    return 0;
  };
  executor.rollback = [](void* user, size_t length) -> int32_t {
    static_cast<Script*>(user)->appended.resize(length);
    return 0;
  };
  executor.length = [](void* user) { return static_cast<Script*>(user)->appended.size(); };
  return executor;
}

ark_generate_options greedy(int32_t max_tokens = 0) {
  ark_generate_options options{};
  options.size = sizeof(options);
  options.max_tokens = max_tokens;
  options.top_p = 1;
  options.repetition_penalty = 1;
  return options;
}

struct Outcome {
  std::string text;
  std::vector<int32_t> tokens;
  ark_finish finish = ARK_FINISH_NONE;
};

Outcome run(Generation* generation) {
  Outcome outcome;
  while (outcome.finish == ARK_FINISH_NONE) {
    const Piece& piece = generation->next();
    outcome.text += piece.text;
    if (piece.token >= 0) outcome.tokens.push_back(piece.token);
    outcome.finish = piece.finish;
  }
  return outcome;
}

Outcome run(Script* script, const ark_generate_options& options,
            std::vector<int32_t> prompt = {1, 2}) {
  Generation generation(tiny_model(), table(script), std::move(prompt), options);
  return run(&generation);
}

const char* const kStops[] = {"</s>"};

}  // namespace

TEST(generation_ends_at_max_tokens) {
  Script script{{1, 2, 3}};
  Outcome o = run(&script, greedy(5));
  CHECK(o.text == "abcab" && o.finish == ARK_FINISH_LENGTH);
  CHECK((o.tokens == std::vector<int32_t>{1, 2, 3, 1, 2}));
  // The prompt and every token but the last have been appended.
  CHECK((script.appended == std::vector<int32_t>{1, 2, 1, 2, 3, 1}));
}

TEST(generation_ends_at_a_stop_id) {
  Script script{{1, 2, 7}};
  ark_generate_options options = greedy(50);
  const int32_t stops[] = {30, 7};
  options.stop_ids = stops;
  options.stop_id_count = 2;
  Outcome o = run(&script, options);
  CHECK(o.text == "ab" && o.tokens.size() == 2 && o.finish == ARK_FINISH_STOP_ID);
}

TEST(generation_ends_when_the_context_is_full) {
  Script script{{1}};
  script.context = 5;
  Outcome o = run(&script, greedy(), {1, 2, 3});
  CHECK(o.tokens.size() == 3 && o.finish == ARK_FINISH_CONTEXT && script.appended.size() == 5);
  script.appended.clear();
  o = run(&script, greedy(), {1, 1, 1, 1, 1});
  CHECK(o.tokens.size() == 1 && o.finish == ARK_FINISH_CONTEXT);
  CHECK_ERROR(ARK_CONTEXT_OVERFLOW, PARTS("a prompt of 1 tokens after 5 in a context of 5"),
              run(&script, greedy(), {1}));
}

TEST(generation_hides_stop_strings) {
  Script script{{8, 25, 26, 9}};  // h </s > i
  ark_generate_options options = greedy(50);
  options.stop_strings = kStops;
  options.stop_string_count = 1;
  Generation generation(tiny_model(), table(&script), {1}, options);
  CHECK(generation.next().text == "h");
  const Piece& held = generation.next();
  CHECK(held.token == 25 && held.text.empty() && held.finish == ARK_FINISH_NONE);
  const Piece& last = generation.next();
  CHECK(last.text.empty() && last.finish == ARK_FINISH_STOP_STRING);
  const Piece& after = generation.next();
  CHECK(after.token == -1 && after.text.empty() && after.finish == ARK_FINISH_STOP_STRING);
  CHECK(script.appends == 3);
}

TEST(generation_gives_back_held_text) {
  Script script{{8, 27}};  // h x</ : the end of the second piece might begin the stop string
  ark_generate_options options = greedy(2);
  options.stop_strings = kStops;
  options.stop_string_count = 1;
  Outcome o = run(&script, options);
  CHECK(o.text == "hx</" && o.finish == ARK_FINISH_LENGTH);
}

TEST(generation_emits_whole_characters) {
  Script script{{20, 21, 22, 23, 1}};
  Generation generation(tiny_model(), table(&script), {1}, greedy(5));
  CHECK(generation.next().text.empty());
  CHECK(generation.next().text == "\xE4\xBD\xA0");
  CHECK(generation.next().text.empty());
  CHECK(generation.next().text == "\xF0\x9F\x98\x80");
  Script half{{20}};
  CHECK(run(&half, greedy(1)).text == "\xEF\xBF\xBD");
}

TEST(generation_penalizes_prompt_and_answer) {
  Script script{{4}};
  ark_generate_options options = greedy(2);
  options.repetition_penalty = 100;
  // Every logit but the wanted one is 0; once token 4 was seen it still wins, at 0.09.
  CHECK((run(&script, options, {4}).tokens == std::vector<int32_t>{4, 4}));
}

TEST(generation_passes_on_failures) {
  Script script{{1}};
  script.fail_at = 1;
  script.failure = 77;
  Generation generation(tiny_model(), table(&script), {1}, greedy(9));
  CHECK(generation.next().token == 1);
  CHECK_ERROR(ARK_EXECUTOR_FAILED, PARTS("returned 77"), generation.next());
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("has failed"), generation.next());
  Script stopping{{1}};
  stopping.fail_at = 1;
  stopping.failure = ARK_CANCELLED;
  CHECK(run(&stopping, greedy(9)).finish == ARK_FINISH_CANCELLED);
}

TEST(generation_refuses) {
  Script script{{1}};
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("empty prompt"), run(&script, greedy(), {}));
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("token id 32"), run(&script, greedy(), {32}));
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("max_tokens"), run(&script, greedy(-1)));
  ark_generate_options options = greedy();
  options.top_p = 0;
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("top_p"), run(&script, options));
}

TEST(generation_drives_a_session) {
  auto draw = [](int32_t threads, uint64_t seed) {
    Session session(tiny_model(), tiny_options(kContext, threads));
    ark_generate_options options = greedy(40);
    options.temperature = 30;
    options.seed = seed;
    Generation generation(tiny_model(), session_executor(&session), {1, 2, 3, 4, 5, 6}, options);
    Outcome o = run(&generation);
    CHECK(o.finish == ARK_FINISH_LENGTH && session.length() == 6 + 39);
    return o.tokens;
  };
  CHECK(draw(1, 5) == draw(2, 5));
  CHECK(draw(2, 5) == draw(2, 5));
  CHECK(draw(2, 5) != draw(2, 6));
}

TEST(generation_is_cancelled_while_it_reads_the_prompt) {
  history_delay = 2000;
  Session session(tiny_model(), tiny_options());
  Generation generation(tiny_model(), session_executor(&session), std::vector<int32_t>(150, 1),
                        greedy());
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(6));
    generation.cancel();
  });
  Outcome o = run(&generation);
  other.join();
  history_delay = 0;
  CHECK(o.finish == ARK_FINISH_CANCELLED && o.tokens.empty() && session.length() == 0);
  // The session can be used again at once.
  Generation again(tiny_model(), session_executor(&session), {1}, greedy(3));
  CHECK(run(&again).finish == ARK_FINISH_LENGTH);
}

TEST(generation_is_cancelled_through_its_session) {
  Session session(tiny_model(), tiny_options());
  Generation generation(tiny_model(), session_executor(&session), {1}, greedy());
  CHECK(generation.next().finish == ARK_FINISH_NONE);
  session.cancel();  // between two tokens
  const Piece& piece = generation.next();
  CHECK(piece.finish == ARK_FINISH_CANCELLED && piece.token == -1);
}

TEST(generation_reports_a_sessions_own_error) {
  Session session(tiny_model(), tiny_options(20));
  Generation generation(tiny_model(), session_executor(&session), {1}, greedy());
  CHECK(generation.next().token >= 0);
  int32_t filler[19] = {};
  session.append(filler, 19, false, nullptr);  // somebody else fills the session
  CHECK_ERROR(ARK_CONTEXT_OVERFLOW, PARTS("1 tokens after 20"), generation.next());
}

TEST(abi_generates) {
  TemporaryBundle bundle;
  bundle.write(Files());
  ark_model* model = nullptr;
  CHECK(ark_model_load(bundle.path().c_str(), nullptr, &model) == ARK_OK);
  ark_session_options options{
      sizeof(ark_session_options), 0, 1, ARK_KV_F32, 1, nullptr, ARK_KERNELS_TUNED, ARK_ON_FASTER};
  ark_session* session = nullptr;
  CHECK(ark_session_create(model, &options, &session) == ARK_OK);
  ark_executor executor{};
  executor.size = sizeof(executor);
  CHECK(ark_session_executor(session, &executor) == ARK_OK && executor.vocab_size == kVocab);
  const int32_t prompt[] = {1, 2, 3};
  ark_generate_options sampling = greedy(6);
  ark_generation* generation = nullptr;
  CHECK(ark_generation_create(model, &executor, prompt, 3, &sampling, &generation) == ARK_OK);
  ark_model_free(model);
  std::vector<int32_t> pulled;
  ark_piece piece{};
  piece.size = sizeof(piece);
  do {
    CHECK(ark_generation_next(generation, &piece) == ARK_OK);
    if (piece.token >= 0) pulled.push_back(piece.token);
  } while (piece.finish == ARK_FINISH_NONE);
  ark_timings timings{};
  timings.size = sizeof(timings);
  CHECK(ark_generation_timings(generation, &timings) == ARK_OK);
  CHECK(timings.prompt_tokens == 3 && timings.generated_tokens == 6 && timings.prefill_seconds > 0);
  ark_generation_free(generation);

  CHECK(ark_model_load(bundle.path().c_str(), nullptr, &model) == ARK_OK);
  CHECK(ark_session_rollback(session, 0) == ARK_OK);
  std::vector<int32_t> pushed;
  auto collect = [](void* user, const ark_piece* p) -> int32_t {
    auto* list = static_cast<std::vector<int32_t>*>(user);
    if (p->token >= 0) list->push_back(p->token);
    return 0;
  };
  CHECK(ark_generate(model, &executor, prompt, 3, &sampling, collect, &pushed) == ARK_OK);
  CHECK(pushed == pulled && pushed.size() == 6);
  auto stop = [](void* user, const ark_piece* p) -> int32_t {
    static_cast<std::vector<int32_t>*>(user)->push_back(p->finish);
    return 1;
  };
  CHECK(ark_session_rollback(session, 0) == ARK_OK);
  pushed.clear();
  CHECK(ark_generate(model, &executor, prompt, 3, &sampling, stop, &pushed) == ARK_OK);
  CHECK((pushed == std::vector<int32_t>{ARK_FINISH_NONE, ARK_FINISH_CANCELLED}));
  CHECK(ark_generation_create(model, &executor, prompt, 0, &sampling, &generation) ==
        ARK_INVALID_ARGUMENT);
  ark_session_free(session);
  ark_model_free(model);
}
