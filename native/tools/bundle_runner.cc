// Runs tokens through a bundle and writes their logits, for tests on emulated CPUs, where no Python
// is: bundle_runner BUNDLE KERNELS THREADS FIRST ID... appends the first FIRST ids at once and the
// others one by one, with float32 activations, and writes float32 [ids, vocabulary] to stdout.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "arkinfer.h"

namespace {

void check(ark_status status) {
  if (status == ARK_OK) return;
  std::fprintf(stderr, "%s: %s\n", ark_status_name(status), ark_last_error());
  std::exit(1);
}

}  // namespace

int main(int count, char** words) {
  constexpr int kFirstId = 5;
  if (count <= kFirstId) {
    std::fputs("bundle_runner BUNDLE KERNELS THREADS FIRST ID...\n", stderr);
    return 2;
  }
  ark_model* model = nullptr;
  check(ark_model_load(words[1], nullptr, &model));
  ark_model_info info{};
  info.size = sizeof(info);
  check(ark_model_get_info(model, &info));
  ark_session_options options{};
  options.size = sizeof(options);
  options.kv_type = ARK_KV_DEFAULT;
  options.activations = ARK_ACTIVATIONS_F32;
  options.kernels = std::atoi(words[2]);
  options.threads = std::atoi(words[3]);
  ark_session* session = nullptr;
  check(ark_session_create(model, &options, &session));
  std::vector<int32_t> ids;
  for (int i = kFirstId; i < count; i++) ids.push_back(std::atoi(words[i]));
  auto row = static_cast<size_t>(info.vocab_size);
  std::vector<float> logits(ids.size() * row);
  auto first = static_cast<size_t>(std::atoi(words[4]));
  if (first > ids.size()) first = ids.size();
  check(ark_session_append(session, ids.data(), first, 1, logits.data()));
  for (size_t i = first; i < ids.size(); i++) {
    check(ark_session_append(session, &ids[i], 1, 0, logits.data() + i * row));
  }
  std::fwrite(logits.data(), sizeof(float), logits.size(), stdout);
  ark_session_free(session);
  ark_model_free(model);
  return 0;
}
