#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "arkinfer.h"
#include "check.h"
#include "crc32c.h"
#include "fixture.h"
#include "session.h"
#include "vocabulary.h"

using namespace ark;
using namespace ark::testing;

namespace {

Vocabulary load_vocabulary(const std::string& bytes) {
  TemporaryBundle folder;
  write_file(folder.file("vocabulary.bin"), bytes);
  return Vocabulary(MappedFile(folder.file("vocabulary.bin")));
}

}  // namespace

TEST(model_loads) {
  std::shared_ptr<const Model> model = tiny_model();
  CHECK(model->has_plan() && model->manifest().vocab_size == kVocab);
  CHECK(model->vocabulary().bytes(1) == "a" && model->vocabulary().bytes(0).empty());
  CHECK(model->vocabulary().bytes(-1).empty() && model->vocabulary().bytes(kVocab).empty());
}

TEST(model_notices_one_flipped_byte_in_each_file) {
  TemporaryBundle bundle;
  bundle.write(Files());
  for (const char* name :
       {"DIGEST", "manifest.json", "plan.json", "weights.bin", "vocabulary.bin"}) {
    std::string good = read_file(bundle.file(name));
    for (size_t place : {size_t{0}, good.size() / 2, good.size() - 1}) {
      std::string bad = good;
      bad[place] = static_cast<char>(bad[place] ^ 1);
      write_file(bundle.file(name), bad);
      CHECK_ERROR(ARK_DAMAGED_BUNDLE, PARTS(name), Model(bundle.path()));
    }
    write_file(bundle.file(name), good.substr(0, good.size() - 1));
    CHECK_ERROR(ARK_DAMAGED_BUNDLE, PARTS(name), Model(bundle.path()));
    unlink(bundle.file(name).c_str());
    bool no_bundle = std::string(name) == "manifest.json";
    CHECK_ERROR(no_bundle ? ARK_INVALID_BUNDLE : ARK_DAMAGED_BUNDLE, PARTS(name),
                Model(bundle.path()));
    write_file(bundle.file(name), good);
  }
  Model(bundle.path());
}

TEST(model_can_skip_the_checksum_of_weights_only) {
  TemporaryBundle bundle;
  bundle.write(Files());
  std::string weights = read_file(bundle.file("weights.bin"));
  weights[0] = 1;
  write_file(bundle.file("weights.bin"), weights);
  CHECK_ERROR(ARK_DAMAGED_BUNDLE, PARTS("weights.bin"), Model(bundle.path()));
  Model(bundle.path(), ARK_CHECK_SKIP);
  std::string plan = read_file(bundle.file("plan.json"));
  plan.back() = ' ';
  write_file(bundle.file("plan.json"), plan);
  CHECK_ERROR(ARK_DAMAGED_BUNDLE, PARTS("plan.json"), Model(bundle.path(), ARK_CHECK_SKIP));
}

// Larger than one piece, so that several threads take part.
TEST(model_checks_weights_beside_the_first_tokens) {
  TemporaryBundle bundle;
  Files files;
  files.weights.resize(3 * BundleChecksum::kPiece + 5000);
  bundle.write(files);
  const std::vector<int32_t> tokens{1, 2, 3};
  std::vector<float> logits(kVocab);
  for (bool damaged : {false, true}) {
    if (damaged) {
      std::string weights = files.weights;
      weights.back() = 1;
      write_file(bundle.file("weights.bin"), weights);
    }
    auto model = std::make_shared<const Model>(bundle.path(), ARK_CHECK_BESIDE);
    Session session(model, tiny_options());
    session.append(tokens.data(), 3, false, nullptr);  // gives nothing that could be wrong
    CHECK(session.length() == 3);
    auto ask = [&] { session.append(tokens.data(), 3, false, logits.data()); };
    for (int again = 0; again < 2; again++) {
      if (damaged) {
        CHECK_ERROR(ARK_DAMAGED_BUNDLE, PARTS("weights.bin", "checksum"), ask());
        CHECK(session.length() == 3);
      } else {
        ask();
        CHECK(session.length() == 6 + 3 * again);
      }
    }
  }
  Model unused(bundle.path(), ARK_CHECK_BESIDE);  // ends in the middle of its check
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("checksum 3"), Model(bundle.path(), 3));
}

TEST(model_refuses_paths) {
  TemporaryBundle bundle;
  CHECK_ERROR(ARK_NOT_FOUND, PARTS("no bundle at"), Model(bundle.file("nothing")));
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("no manifest.json"), Model(bundle.path()));
  write_file(bundle.file("plan.json"), "x");
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("not a folder"), Model(bundle.file("plan.json")));
}

// A bundle of another backend still gives its vocabulary to generation, and no session.
TEST(model_without_a_plan) {
  TemporaryBundle bundle;
  Files files;
  files.plan.clear();
  files.manifest = replaced(files.manifest, "\"cpu\"", "\"onnxruntime\"");
  bundle.write(files);
  Model model(bundle.path());
  CHECK(!model.has_plan() && model.vocabulary().present());
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("'onnxruntime'", "--target cpu"), model.plan());
}

TEST(vocabulary_refuses) {
  std::string good = vocabulary_bytes({"ab", "", "c"});
  CHECK(load_vocabulary(good).bytes(2) == "c");
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("fewer than 8 bytes"), load_vocabulary(good.substr(0, 7)));
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("last offset"), load_vocabulary(good + "x"));
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("last offset"),
              load_vocabulary(good.substr(0, good.size() - 1)));
  auto with = [&](size_t place, char value) {
    std::string bad = good;
    bad[place] = value;
    return bad;
  };
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("past the end"), load_vocabulary(with(3, '\xFF')));
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("first offset"), load_vocabulary(with(4, 1)));
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("go back"), load_vocabulary(with(8, 3)));
}

TEST(abi_reports_by_status_and_text) {
  ark_model* model = nullptr;
  CHECK(ark_model_load("/no/such/bundle", nullptr, &model) == ARK_NOT_FOUND && !model);
  CHECK(std::string(ark_last_error()).find("'/no/such/bundle'") != std::string::npos);
  CHECK(std::string(ark_status_name(ARK_NOT_FOUND)) == "NotFound");
  CHECK(std::string(ark_status_name(static_cast<ark_status>(99))) == "Unknown");
  CHECK(ark_abi_version() == ARK_ABI_VERSION && *ark_version());
  CHECK(ark_model_load(nullptr, nullptr, &model) == ARK_INVALID_ARGUMENT);

  TemporaryBundle bundle;
  bundle.write(Files());
  ark_model_options options{3, 0};
  CHECK(ark_model_load(bundle.path().c_str(), &options, &model) == ARK_INVALID_ARGUMENT);
  options.size = sizeof(options);
  CHECK(ark_model_load(bundle.path().c_str(), &options, &model) == ARK_OK);
  ark_model_info info{};
  CHECK(ark_model_get_info(model, &info) == ARK_INVALID_ARGUMENT);
  info.size = sizeof(size_t) + sizeof(int32_t);  // a caller from before the other members
  CHECK(ark_model_get_info(model, &info) == ARK_OK);
  CHECK(info.vocab_size == kVocab && info.layers == 0 && info.size == 12);
  ark_model_free(model);
  ark_model_free(nullptr);
  ark_session_free(nullptr);
  ark_generation_free(nullptr);
}
