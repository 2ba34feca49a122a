// Hostile manifests, plans, vocabularies and JSON, loaded and, when they load, run.
//
// With libFuzzer (clang, -DARK_LIBFUZZER=ON) the entry is driven by coverage. Without it,
//   fuzz_bundle [rounds] [seed]
// runs the seeds and then mutations of them, the same ones every time.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "device/self_test.h"
#include "error.h"
#include "fixture.h"
#include "host_files.h"
#include "json.h"
#include "launch_files.h"

using namespace ark;
using namespace ark::testing;

namespace {

enum Target { kJson, kPlan, kManifest, kVocabulary, kDense, kSparse, kLaunches, kHost, kTargets };

int loaded = 0;

// No driver is there; the self-test takes the steps as its plan describes them.
void test_launches(const Model& model) {
  const LaunchPlan& plan = *model.launches();
  int64_t capacity = self_test_capacity(plan, kContext);
  HostRunner runner(plan, model.weights(), capacity);
  self_test(plan, model.weights(), capacity, &runner);
}

void load_and_run(const Files& files) {
  static TemporaryBundle bundle;
  bundle.write(files);
  auto model = std::make_shared<const Model>(bundle.path());
  loaded++;
  if (!model->has_plan()) return;
  SessionOptions options = tiny_options(std::min<int64_t>(model->manifest().context, kContext), 1);
  if (model->host_plan()) options.on = ARK_ON_CPU;  // no device is there
  MemoryPlan memory = plan_memory(*model, options);
  if (memory.kv_cache + memory.compressed_keys + memory.arena > int64_t{1} << 26) return;
  if (model->launches() && !model->host_plan()) return test_launches(*model);
  Session session(model, options);
  std::vector<int32_t> tokens{1, 31, 2, 3, 4, 5, 0};
  std::vector<float> logits(tokens.size() * static_cast<size_t>(model->manifest().vocab_size));
  session.append(tokens.data(), tokens.size(), true, logits.data());
  for (int32_t head = 0; head < model->manifest().kv_heads; head++)
    session.selected_blocks(0, head);
}

void run_one(Target target, const std::string& text) {
  Files files;
  if (target == kDense || target == kSparse) {
    files = real_files(target == kSparse);
    files.plan = text;
  }
  if (target == kLaunches) {
    files = launch_files();
    files.launches = text;
  }
  if (target == kHost) {
    files = host_files();
    files.host = text;
  }
  try {
    if (target == kJson) Json::parse("fuzz", text.data(), text.size());
    if (target == kPlan) files.plan = text;
    if (target == kManifest) files.manifest = text;
    if (target == kVocabulary) files.vocabulary = text;
    if (target != kJson) load_and_run(files);
  } catch (const Error&) {
    // A refusal by name is the right answer; anything else ends the process.
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  run_one(static_cast<Target>(data[0] % kTargets),
          std::string(reinterpret_cast<const char*>(data) + 1, size - 1));
  return 0;
}

#if !defined(ARK_LIBFUZZER)
namespace {

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  // Most mutations keep the text well-formed, so that they reach what is behind the parser.
  std::string mutate(std::string text) {
    for (size_t times = 1 + below(3); times > 0 && !text.empty(); times--) {
      switch (below(12)) {
        case 0:
          text[below(text.size())] = static_cast<char>(below(256));
          break;
        case 1:
          text.erase(below(text.size()), 1 + below(8));
          break;
        case 2:
          text.insert(below(text.size()), text.substr(below(text.size()), below(40)));
          break;
        case 3:
          text.resize(below(text.size()));
          break;
        case 4:
        case 5:
        case 6:
        case 7:
          swap_strings(&text);
          break;
        default:
          replace_number(&text);
          break;
      }
    }
    return text;
  }

  size_t below(size_t n) { return n ? static_cast<size_t>(random_() % n) : 0; }

 private:
  // Numbers and names are where a well-formed plan does harm.
  void replace_number(std::string* text) {
    static const char* const kValues[] = {"0",
                                          "-1",
                                          "1",
                                          "2",
                                          "3",
                                          "4",
                                          "5",
                                          "8",
                                          "15",
                                          "16",
                                          "17",
                                          "32",
                                          "63",
                                          "64",
                                          "65",
                                          "128",
                                          "192",
                                          "256",
                                          "512",
                                          "1024",
                                          "65536",
                                          "2147483647",
                                          "2147483648",
                                          "4294967296",
                                          "1125899906842624",
                                          "9007199254740993",
                                          "1e18",
                                          "1e308",
                                          "0.5",
                                          "-0.0",
                                          "1e-300"};
    size_t from = text->find_first_of("0123456789", below(text->size()));
    if (from == std::string::npos) return;
    size_t to = text->find_first_not_of("0123456789", from);
    text->replace(from, (to == std::string::npos ? text->size() : to) - from,
                  kValues[below(sizeof(kValues) / sizeof(kValues[0]))]);
  }

  void swap_strings(std::string* text) {
    std::string names[2];
    size_t places[2];
    for (int i = 0; i < 2; i++) {
      places[i] = text->find("\": \"", below(text->size()));
      if (places[i] == std::string::npos) return;
      places[i] += 4;
      size_t end = text->find('"', places[i]);
      if (end == std::string::npos) return;
      names[i] = text->substr(places[i], end - places[i]);
    }
    text->replace(places[0], names[0].size(), names[1]);
  }

  std::mt19937_64 random_;
};

}  // namespace

int main(int argc, char** argv) {
  long rounds = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 20000;
  Mutator mutator(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  const std::string seeds[kTargets] = {
      R"({"a": [1, -2.5e-3, true, false, null, {"b": "\u00e9\ud83d\ude00 \\"}], "c": {}})",
      plan_text(),
      manifest_text(),
      vocabulary_bytes(tokens()),
      real_files(false).plan,
      real_files(true).plan,
      launch_files().launches,
      host_files().host};
  for (int target = 0; target < kTargets; target++)
    run_one(static_cast<Target>(target), seeds[target]);
  if (loaded != 7) {
    std::printf("the seeds did not load\n");
    return 1;
  }
  for (long round = 0; round < rounds; round++) {
    auto target = static_cast<Target>(mutator.below(kTargets));
    run_one(target, mutator.mutate(seeds[target]));
  }
  std::printf("%ld mutations, %d bundles loaded and ran\n", rounds, loaded);
  return 0;
}
#endif
