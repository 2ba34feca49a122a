#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arkinfer.h"
#include "crc32c.h"
#include "generation.h"
#include "isa.h"
#include "last_error.h"
#include "session.h"
#include "thread_pool.h"
#include "tuning.h"

#ifndef ARK_VERSION
#define ARK_VERSION "0.1.0"
#endif

struct ark_model {
  std::shared_ptr<const ark::Model> model;
};
struct ark_session {
  std::unique_ptr<ark::Session> session;
};
struct ark_generation {
  std::unique_ptr<ark::Generation> generation;
};

namespace ark {
namespace {

constexpr size_t kLongestError = 2048;
thread_local char last_error[kLongestError] = "";

void require(bool good, const char* found) {
  if (!good) fail(ARK_INVALID_ARGUMENT, found, "a pointer", "");
}

// Copies the part of a caller's struct that both sides know over the defaults in *ours.
template <typename T>
void read_struct(const T* theirs, T* ours) {
  if (!theirs) return;
  if (theirs->size < sizeof(size_t) || theirs->size > 65536) {
    fail(ARK_INVALID_ARGUMENT, "a struct of size " + std::to_string(theirs->size),
         "its own sizeof in the member size", "");
  }
  std::memcpy(static_cast<void*>(ours), theirs, std::min(theirs->size, sizeof(T)));
  ours->size = sizeof(T);
}

template <typename T>
void write_struct(T ours, T* theirs) {
  require(theirs != nullptr, "no struct to fill");
  size_t size = theirs->size;
  if (size < sizeof(size_t) || size > 65536) {
    fail(ARK_INVALID_ARGUMENT, "a struct of size " + std::to_string(size),
         "its own sizeof in the member size", "");
  }
  ours.size = size;
  std::memcpy(static_cast<void*>(theirs), &ours, std::min(size, sizeof(T)));
}

std::unique_ptr<Generation> make_generation(const ark_model* model, const ark_executor* executor,
                                            const int32_t* prompt, size_t prompt_tokens,
                                            const ark_generate_options* options) {
  require(model && executor, "no model or no executor");
  require(prompt || prompt_tokens == 0, "no prompt");
  ark_executor table{};
  read_struct(executor, &table);
  if (!table.append || !table.length || table.vocab_size < 1) {
    fail(ARK_INVALID_ARGUMENT, "an executor without append, length or vocabulary", "all of them",
         "");
  }
  ark_generate_options chosen{};
  chosen.temperature = 1;
  chosen.top_p = 1;
  chosen.repetition_penalty = 1;
  read_struct(options, &chosen);
  require(chosen.stop_ids || chosen.stop_id_count == 0, "no stop_ids");
  require(chosen.history || chosen.history_count == 0, "no history");
  require(chosen.stop_strings || chosen.stop_string_count == 0, "no stop_strings");
  return std::make_unique<Generation>(model->model, table,
                                      std::vector<int32_t>(prompt, prompt + prompt_tokens), chosen);
}

template <size_t kBytes>
void write_text(const std::string& text, char (&place)[kBytes]) {
  std::strncpy(place, text.c_str(), kBytes - 1);
  place[kBytes - 1] = 0;
}

ark_choice as_c(const Choice& choice) {
  ark_choice result{0,
                    choice.on,
                    choice.device_speeds.prefill,
                    choice.device_speeds.decode,
                    choice.cpu_speeds.prefill,
                    choice.cpu_speeds.decode,
                    {},
                    {}};
  write_text(choice.device, result.device);
  write_text(choice.why, result.why);
  return result;
}

ark_piece as_c(const Piece& piece) {
  return {sizeof(ark_piece), piece.token, piece.text.data(), piece.text.size(), piece.finish};
}

}  // namespace

void set_last_error(const char* text) noexcept {
  std::strncpy(last_error, text, kLongestError - 1);
  last_error[kLongestError - 1] = 0;
}

}  // namespace ark

using ark::guard;
using ark::require;

extern "C" {

int32_t ark_abi_version(void) { return ARK_ABI_VERSION; }

const char* ark_version(void) { return ARK_VERSION; }

const char* ark_status_name(ark_status status) {
  static const char* const kNames[] = {
      "Ok",          "NotFound",        "DamagedBundle",   "InvalidBundle", "BundleVersion",
      "OutOfMemory", "ContextOverflow", "InvalidArgument", "Cancelled",     "ExecutorFailed",
      "Internal"};
  auto index = static_cast<size_t>(status);
  return index < sizeof(kNames) / sizeof(kNames[0]) ? kNames[index] : "Unknown";
}

const char* ark_last_error(void) { return ark::last_error; }

ark_status ark_model_load(const char* path, const ark_model_options* options, ark_model** model) {
  return guard([&] {
    require(path && model, "no path or no place for the model");
    ark_model_options chosen{};
    ark::read_struct(options, &chosen);
    auto loaded = std::make_shared<const ark::Model>(path, chosen.checksum);
    *model = new ark_model{std::move(loaded)};
  });
}

void ark_model_free(ark_model* model) { delete model; }

ark_status ark_model_get_info(const ark_model* model, ark_model_info* info) {
  return guard([&] {
    require(model, "no model");
    const ark::Manifest& manifest = model->model->manifest();
    ark::write_struct(ark_model_info{0, manifest.vocab_size, manifest.layers, manifest.kv_heads,
                                     manifest.context, manifest.chunk},
                      info);
  });
}

ark_status ark_model_plan_memory(const ark_model* model, const ark_session_options* options,
                                 ark_memory* memory) {
  return guard([&] {
    require(model, "no model");
    ark_session_options chosen{};
    chosen.kv_type = ARK_KV_DEFAULT;
    ark::read_struct(options, &chosen);
    ark::MemoryPlan plan =
        ark::plan_memory(*model->model, ark::resolve_options(*model->model, &chosen));
    ark::write_struct(
        ark_memory{0, static_cast<uint64_t>(plan.weights), static_cast<uint64_t>(plan.kv_cache),
                   static_cast<uint64_t>(plan.compressed_keys), static_cast<uint64_t>(plan.arena),
                   static_cast<uint64_t>(plan.tokenizer)},
        memory);
  });
}

ark_status ark_session_create(ark_model* model, const ark_session_options* options,
                              ark_session** session) {
  return guard([&] {
    require(model && session, "no model or no place for the session");
    ark_session_options chosen{};
    chosen.kv_type = ARK_KV_DEFAULT;
    ark::read_struct(options, &chosen);
    auto made =
        std::make_unique<ark::Session>(model->model, ark::resolve_options(*model->model, &chosen));
    *session = new ark_session{std::move(made)};
  });
}

void ark_session_free(ark_session* session) { delete session; }

ark_status ark_session_get_choice(const ark_session* session, ark_choice* choice) {
  return guard([&] {
    require(session, "no session");
    ark::write_struct(ark::as_c(session->session->choice()), choice);
  });
}

ark_status ark_model_kept_choice(const ark_model* model, const ark_session_options* options,
                                 ark_choice* choice) {
  return guard([&] {
    require(model, "no model");
    ark_session_options chosen{};
    chosen.kv_type = ARK_KV_DEFAULT;
    ark::read_struct(options, &chosen);
    const ark::SessionOptions resolved = ark::resolve_options(*model->model, &chosen);
    ark::write_struct(ark::as_c(ark::kept_choice(*model->model, resolved)), choice);
  });
}

ark_status ark_session_append(ark_session* session, const int32_t* tokens, size_t n,
                              int32_t all_logits, float* logits) {
  return guard([&] {
    require(session && (tokens || n == 0), "no session or no tokens");
    session->session->clear_cancel();
    session->session->append(tokens, n, all_logits != 0, logits);
  });
}

ark_status ark_session_rollback(ark_session* session, size_t length) {
  return guard([&] {
    require(session, "no session");
    session->session->rollback(length);
  });
}

ark_status ark_session_verify_tree(ark_session* session, const int32_t* tokens,
                                   const int32_t* parents, size_t n, float* logits) {
  return guard([&] {
    require(session && logits && ((tokens && parents) || n == 0),
            "no session, tokens, parents or logits");
    session->session->clear_cancel();
    session->session->verify_tree(tokens, parents, n, logits);
  });
}

ark_status ark_session_accept(ark_session* session, const int32_t* path, size_t n) {
  return guard([&] {
    require(session && (path || n == 0), "no session or no path");
    session->session->accept(path, n);
  });
}

ark_status ark_session_fill_random(ark_session* session, size_t length, uint64_t seed) {
  return guard([&] {
    require(session, "no session");
    session->session->clear_cancel();
    session->session->fill_random(length, seed);
  });
}

size_t ark_session_length(const ark_session* session) {
  return session ? static_cast<size_t>(session->session->length()) : 0;
}

size_t ark_session_context(const ark_session* session) {
  return session ? static_cast<size_t>(session->session->options().context) : 0;
}

const char* ark_session_isa(const ark_session* session) {
  return session ? ark::isa_name(session->session->options().isa) : "";
}

int32_t ark_session_threads(const ark_session* session) {
  return session ? session->session->options().threads : 0;
}

void ark_session_cancel(ark_session* session) {
  if (session) session->session->cancel();
}

ark_status ark_session_selected_blocks(const ark_session* session, int32_t layer, int32_t kv_head,
                                       int32_t* blocks, size_t capacity, size_t* count) {
  return guard([&] {
    require(session && count && (blocks || capacity == 0), "no session, blocks or count");
    std::vector<int32_t> found = session->session->selected_blocks(layer, kv_head);
    *count = found.size();
    std::copy_n(found.begin(), std::min(capacity, found.size()), blocks);
  });
}

void ark_session_set_trace(ark_session* session, ark_trace_fn trace, void* user) {
  guard([&] {
    require(session, "no session");
    session->session->set_trace(trace, user);
  });
}

ark_status ark_session_executor(ark_session* session, ark_executor* executor) {
  return guard([&] {
    require(session, "no session");
    ark::write_struct(ark::session_executor(session->session.get()), executor);
  });
}

ark_status ark_generation_create(const ark_model* model, const ark_executor* executor,
                                 const int32_t* prompt, size_t prompt_tokens,
                                 const ark_generate_options* options, ark_generation** generation) {
  return guard([&] {
    require(generation, "no place for the generation");
    auto made = ark::make_generation(model, executor, prompt, prompt_tokens, options);
    *generation = new ark_generation{std::move(made)};
  });
}

ark_status ark_generation_next(ark_generation* generation, ark_piece* piece) {
  return guard([&] {
    require(generation && piece, "no generation or no piece");
    ark::write_struct(ark::as_c(generation->generation->next()), piece);
  });
}

void ark_generation_cancel(ark_generation* generation) {
  if (generation) generation->generation->cancel();
}

void ark_generation_free(ark_generation* generation) { delete generation; }

ark_status ark_generation_timings(const ark_generation* generation, ark_timings* timings) {
  return guard([&] {
    require(generation, "no generation");
    ark::write_struct(generation->generation->timings(), timings);
  });
}

ark_status ark_generate(const ark_model* model, const ark_executor* executor, const int32_t* prompt,
                        size_t prompt_tokens, const ark_generate_options* options,
                        ark_piece_fn callback, void* user) {
  return guard([&] {
    require(callback != nullptr, "no callback");
    auto generation = ark::make_generation(model, executor, prompt, prompt_tokens, options);
    bool going = true;
    while (going) {
      ark_piece piece = ark::as_c(generation->next());
      going = piece.finish == ARK_FINISH_NONE;
      if (callback(user, &piece) != 0) generation->cancel();
    }
  });
}

uint32_t ark_checksum(const void* data, size_t bytes) {
  uint32_t checksum = 0;
  guard([&] {
    require(data || bytes == 0, "no data");
    constexpr size_t kWorthThreads = size_t{4} << 20;
    ark::ThreadPool pool(bytes < kWorthThreads ? 1 : ark::ThreadPool::available_cores());
    checksum = ark::bundle_checksum(data, bytes, pool.parallel());
  });
  return checksum;
}

const char* ark_cpu(void) { return ark::cpu_name().c_str(); }

const char* ark_isas(void) {
  static const std::string names = [] {
    std::string list;
    for (ark::Isa isa : ark::usable_isas()) {
      list += (list.empty() ? "" : " ") + std::string(ark::isa_name(isa));
    }
    return list;
  }();
  return names.c_str();
}

}  // extern "C"
