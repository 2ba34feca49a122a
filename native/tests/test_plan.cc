#include <string>
#include <vector>

#include "bind.h"
#include "check.h"
#include "fixture.h"
#include "manifest.h"
#include "plan.h"

using namespace ark;
using namespace ark::testing;

namespace {

struct Corruption {
  const char* from;
  const char* to;
  const char* expected;  // part of the message
};

void load_with(const std::string& plan) {
  TemporaryBundle bundle;
  Files files;
  files.plan = plan;
  bundle.write(files);
  Model model(bundle.path());
}

void check_refused(const std::string& plan, const Corruption& c) {
  std::string corrupt = replaced(plan, c.from, c.to);
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("plan.json", c.expected), load_with(corrupt));
}

const char* const kSelect =
    R"({"kernel": "select_blocks", "operands": {"y": {"buffer": "blocks"}}, "attributes": {"block_size": 16}})";
const char* const kSparse =
    R"({"kernel": "sparse", "operands": {"blocks": {"buffer": "blocks"}, "y": {"buffer": "hidden"}}, "attributes": {"block_size": 16}})";
const PlanLimits kLimits{576, 32, 1, 1, 4};

// A plan whose body is the given steps; parsed only, since its kernels are not there.
Plan parse_body(const std::string& steps) {
  std::string plan = plan_text();
  size_t from = plan.find("\"body\": [") + 9;
  plan.replace(from, plan.find("\"head\": [") - from, steps + "],");
  return parse_plan(plan.data(), plan.size(), kLimits);
}

}  // namespace

TEST(plan_reads) {
  std::string text = plan_text();
  Plan plan = parse_plan(text.data(), text.size(), kLimits);
  CHECK(plan.chunk == 4 && plan.output_rows == 2 && plan.buffers.size() == 6);
  CHECK(plan.buffers[plan.logits].bytes == 256 && plan.buffers[plan.token_ids].bytes == 16);
  CHECK(plan.body[1].stage == "layers.0.output" && plan.body[2].keep_operand == 0);
  load_with(text);
}

TEST(plan_refuses_bad_sizes_and_names) {
  const Corruption list[] = {
      {"\"version\": 1", "\"version\": 2", "version"},
      {"\"chunk\": 4", "\"chunk\": 0", "chunk"},
      {"\"chunk\": 4", "\"chunk\": 8", "not the manifest's"},
      {"\"output_rows\": 2", "\"output_rows\": 5", "output_rows"},
      {"\"arena_bytes\": 640", "\"arena_bytes\": 300", "inside the 300 bytes of the arena"},
      {"\"arena_bytes\": 640", "\"arena_bytes\": -1", "arena_bytes"},
      {"\"arena_bytes\": 640", "\"arena_bytes\": 1e30", "arena_bytes"},
      {"\"arena_bytes\": 640,", "", "no \"arena_bytes\""},
      {"\"offset\": 512", "\"offset\": 513", "a multiple of 64"},
      {"\"offset\": 512", "\"offset\": 640", "inside the 640 bytes"},
      {"\"offset\": 512", "\"offset\": -64", "offset"},
      {"\"offset\": 512", "\"offset\": 1125899906842624", "inside the 640 bytes"},
      {"\"dtype\": \"i32\", \"rows\": \"tokens\", \"columns\": 4",
       "\"dtype\": \"u4\", \"rows\": \"tokens\", \"columns\": 4", "u4 buffer"},
      {"\"dtype\": \"i32\", \"rows\": \"tokens\", \"columns\": 4",
       "\"dtype\": \"u2\", \"rows\": \"tokens\", \"columns\": 4", "u2 buffer"},
      {"\"dtype\": \"i32\", \"rows\": \"tokens\", \"columns\": 4",
       "\"dtype\": \"f8\", \"rows\": \"tokens\", \"columns\": 4", "'f8'"},
      {"\"columns\": 4, \"offset\": 512", "\"columns\": 2147483648, \"offset\": 512",
       "inside the 640 bytes"},
      {"\"columns\": 4, \"offset\": 512", "\"columns\": 0, \"offset\": 512", "columns"},
      {"\"rows\": \"tokens\", \"columns\": 4, \"offset\": 512",
       "\"rows\": 2147483648, \"columns\": 2147483648, \"offset\": 512", "beyond 2^63"},
      {"\"rows\": \"tokens\", \"columns\": 4, \"offset\": 512",
       "\"rows\": \"all\", \"columns\": 4, \"offset\": 512", "'all'"},
      {"\"name\": \"blocks\"", "\"name\": \"hidden\"", "a second time"},
      {"\"name\": \"token_ids\"", "\"name\": \"ids\"", "no buffer 'token_ids'"},
      {"\"name\": \"head_rows\"", "\"name\": \"other\"", "no buffer 'head_rows'"},
      {"\"columns\": 32", "\"columns\": 31", "'logits' has another type"},
      {"\"logits\": \"logits\"", "\"logits\": \"hidden\"", "'hidden' has another type"},
      {"\"rows\": \"outputs\", \"columns\": 4, \"offset\": 192",
       "\"rows\": \"outputs\", \"columns\": 4, \"offset\": 128", "shares bytes with 'head_input'"},
  };
  for (const Corruption& c : list) check_refused(plan_text(), c);
}

TEST(plan_refuses_bad_weights_and_caches) {
  const Corruption list[] = {
      {"\"shape\": [32, 4]", "\"shape\": [33, 4]", "at least 768"},
      {"\"shape\": [32, 4]", "\"shape\": [2147483648, 2147483648]", "beyond 2^63"},
      {"\"shape\": [32, 4]", "\"shape\": [32, 4, 1]", "1 or 2 dimensions"},
      {"\"shape\": [32, 4]", "\"shape\": []", "1 or 2 dimensions"},
      {"\"shape\": [32, 4]", "\"shape\": [0, 4]", "shape[0]"},
      {"\"shape\": [32, 4]", "\"shape\": [1.5, 4]", "1.5"},
      {"\"offset\": 64, \"bytes\": 512", "\"offset\": 128, \"bytes\": 512",
       "inside the 576 bytes of weights.bin"},
      {"\"offset\": 64, \"bytes\": 512", "\"offset\": 60, \"bytes\": 512", "a multiple of 64"},
      {"\"offset\": 64, \"bytes\": 512", "\"offset\": 64, \"bytes\": 511", "at least 512"},
      {"\"offset\": 64, \"bytes\": 512", "\"offset\": 64, \"bytes\": 1125899906842624",
       "weights.bin"},
      {"{\"name\": \"key\", \"kind\": \"key\"", "{\"name\": \"fine\", \"kind\": \"key\"",
       "a second time"},
      {"\"kind\": \"key\"", "\"kind\": \"keys\"", "'keys'"},
      {"\"kv_heads\": 1", "\"kv_heads\": 2", "like the model"},
      {"\"head_dim\": 4", "\"head_dim\": 0", "head_dim"},
      {"\"stride\": 16", "\"stride\": 0", "stride"},
      {"\"stride\": 16", "\"stride\": 33", "stride"},
      {"\"window\": 32", "\"window\": 1e9", "window"},
  };
  for (const Corruption& c : list) check_refused(plan_text(), c);
}

TEST(plan_refuses_bad_steps) {
  const Corruption list[] = {
      {"test_embed", "no_such_kernel", "body[0] ('no_such_kernel'): no kernel of that name"},
      {"{\"buffer\": \"token_ids\"}", "{\"buffer\": \"nobody\"}", "no buffer 'nobody'"},
      {"{\"weight\": \"table\"}", "{\"weight\": \"chair\"}", "no weight 'chair'"},
      {"{\"cache\": \"key\"}", "{\"cache\": \"lock\"}", "no cache 'lock'"},
      {"{\"cache\": \"key\"}", "{}", "no \"buffer\""},
      {"{\"cache\": \"key\"}", "{\"cache\": \"key\"}, \"z\": {\"buffer\": \"hidden\"}",
       "unknown operand 'z'"},
      {"\"key\": {\"cache\": \"key\"},", "", "no operand 'key'"},
      {"\"column\": 0, \"columns\": 4", "\"column\": 1, \"columns\": 4", "columns 1 to 5"},
      {"\"column\": 0, \"columns\": 4", "\"column\": 4", "columns 4 to 4"},
      {"\"column\": 0, \"columns\": 4", "\"column\": -1", "column"},
      {"\"column\": 0, \"columns\": 4", "\"column\": 0, \"columns\": 2", "x and y are not"},
      {"{\"period\": 7}", "{\"period\": 7, \"phase\": 1}", "unknown attribute 'phase'"},
      {"{\"period\": 7}", "{}", "no attribute 'period'"},
      {"{\"period\": 7}", "{\"period\": \"7\"}", "not a number"},
      {"{\"period\": 7}", "{\"period\": 0}", "period is below 1"},
      {"{\"operand\": \"y\", \"layer\": 0}", "{\"operand\": \"x\", \"layer\": 0}",
       "no operand 'x'"},
      {"{\"operand\": \"y\", \"layer\": 0}", "{\"operand\": \"y\", \"layer\": 1}", "layer"},
      {"\"y\": {\"buffer\": \"hidden\"}", "\"y\": {\"weight\": \"table\"}", "'y' is a weight"},
      {"\"y\": {\"buffer\": \"logits\"}", "\"y\": {\"weight\": \"table\"}", "'y' is a weight"},
      {"\"codes\": {\"weight\": \"table\"}", "\"codes\": {\"buffer\": \"hidden\"}",
       "'codes' is no weight"},
      {"\"x\": {\"buffer\": \"head_rows\"}", "\"x\": {\"buffer\": \"head_input\"}",
       "the other list's rows"},
      {"\"x\": {\"buffer\": \"head_rows\"}", "\"x\": {\"cache\": \"key\"}", "a cache in the head"},
      {"\"y\": {\"buffer\": \"head_input\"}", "\"y\": {\"buffer\": \"head_rows\"}",
       "the other list's rows"},
      {"\"y\": {\"buffer\": \"blocks\"}", "\"y\": {\"buffer\": \"hidden\"}", "an i32 buffer"},
  };
  for (const Corruption& c : list) check_refused(plan_text(), c);
}

// Indices may come only from the runtime or from the step that made them.
TEST(plan_follows_indices) {
  std::string select = kSelect;
  std::string sparse = kSparse;
  CHECK(parse_body(select + "," + sparse).body.size() == 2);
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("body[0]", "blocks from 'blocks'"), parse_body(sparse));
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("blocks from 'blocks'"),
              parse_body(select + "," + replaced(sparse, "16", "64")));
  CHECK_ERROR(
      ARK_INVALID_BUNDLE, PARTS("blocks from 'blocks'"),
      parse_body(select + "," + replaced(sparse, "\"blocks\"}", "\"blocks\", \"columns\": 2}")));
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("blocks from 'token_ids'"),
              parse_body(select + "," + replaced(sparse, "\"blocks\"}", "\"token_ids\"}")));
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("ids from 'blocks'"),
              parse_body(select + "," + replaced(sparse, "{\"blocks\"", "{\"ids\"")));
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("the operand 'x' is i32"),
              parse_body(select + "," + replaced(sparse, "{\"blocks\"", "{\"x\"")));
}

TEST(plan_sees_indices_overwritten) {
  auto at_zero = [](const char* name) {
    std::string entry =
        std::string("\"name\": \"") + name +
        "\", \"dtype\": \"f32\", \"rows\": \"tokens\", \"columns\": 4, \"offset\": ";
    std::string plan = plan_text();
    size_t from = plan.find(entry) + entry.size();
    return plan.replace(from, plan.find('}', from) - from, "0");
  };
  // Sharing alone is no error: nobody needs the ids after they were read.
  std::string plan = at_zero("head_input");
  load_with(plan);
  // Touched before the ids are read.
  std::string early = replaced(
      plan, "\"body\": [",
      R"("body": [{"kernel": "test_history", "operands": {"x": {"buffer": "hidden"}, "key": {"cache": "key"},
         "y": {"buffer": "head_input"}}, "attributes": {"period": 1}},)");
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("ids from 'token_ids'"), load_with(early));
  // Written by the very step that reads them.
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("'y' shares bytes with 'ids'"),
              load_with(at_zero("hidden")));
}

TEST(plan_checks_cache_geometry) {
  std::string compress =
      R"({"kernel": "compress_keys", "operands": {"key": {"cache": "key"}, "compressed": {"cache": "fine"}}, "attributes": {"window": 32, "stride": 16}})";
  CHECK(parse_body(compress).body.size() == 1);
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("window and stride differ"),
              parse_body(replaced(compress, "16", "8")));
  std::string select =
      R"({"kernel": "select_blocks", "operands": {"coarse": {"cache": "fine"}, "y": {"buffer": "blocks"}}, "attributes": {"kernel_size": 8, "kernel_stride": 4}})";
  CHECK(parse_body(select).body.size() == 1);
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("kernel_size and kernel_stride differ"),
              parse_body(replaced(select, "coarse", "fine")));
}

TEST(manifest_refuses) {
  struct Case {
    const char* from;
    const char* to;
    ark_status status;
    const char* expected;
  };
  const Case list[] = {
      {"\"format_version\": 1", "\"format_version\": 2", ARK_BUNDLE_VERSION, "update arkinfer"},
      {"\"format_version\": 1", "\"format_version\": 0", ARK_BUNDLE_VERSION,
       "compile the bundle again"},
      {"\"format_version\": 1", "\"format_version\": \"1\"", ARK_INVALID_BUNDLE, "not a number"},
      {"\"minimum\": 1", "\"minimum\": 2", ARK_BUNDLE_VERSION, "runtime ABI"},
      {"\"maximum\": 1", "\"maximum\": 0", ARK_BUNDLE_VERSION, "runtime ABI"},
      {"\"vocab_size\": 32", "\"vocab_size\": 0", ARK_INVALID_BUNDLE, "vocab_size"},
      {"\"num_layers\": 1", "\"num_layers\": 1e6", ARK_INVALID_BUNDLE, "num_layers"},
      {"\"num_kv_heads\": 1", "\"num_kv_heads\": -1", ARK_INVALID_BUNDLE, "num_kv_heads"},
      {"\"context\": 200", "\"context\": 1e18", ARK_INVALID_BUNDLE, "context"},
      {"\"chunk\": 4", "\"chunk\": null", ARK_INVALID_BUNDLE, "chunk"},
      {"{FILES}", "{\"../x\": {\"bytes\": 1}}", ARK_INVALID_BUNDLE, "'../x'"},
      {"{FILES}", "{\"a\\\\b\": {\"bytes\": 1}}", ARK_INVALID_BUNDLE, "a name without a path"},
      {"{FILES}", "{\"..\": {\"bytes\": 1}}", ARK_INVALID_BUNDLE, "'..'"},
      {"{FILES}", "{\"a\": {\"bytes\": 1, \"sha256\": \"zz\", \"crc32c\": \"0x00000000\"}}",
       ARK_INVALID_BUNDLE, "sha256"},
      {"{FILES}", "[]", ARK_INVALID_BUNDLE, "not an object"},
      {"\"chunk\": 4", "\"chunk\": 4, \"kv\": \"fp8\"", ARK_INVALID_BUNDLE, "'fp8'"},
      {"\"chunk\": 4", "\"chunk\": 4, \"kv\": 8", ARK_INVALID_BUNDLE, "kv"},
  };
  for (const Case& c : list) {
    std::string text = replaced(manifest_text(), c.from, c.to);
    if (text.find("FILES") != std::string::npos) text = replaced(text, "FILES", "");
    CHECK_ERROR(c.status, PARTS("manifest.json", c.expected),
                parse_manifest(text.data(), text.size()));
  }
  std::string file = std::string("{\"a\": {\"bytes\": 1, \"sha256\": \"") + std::string(64, '0') +
                     "\", \"crc32c\": \"0x0000000g\"}}";
  std::string text = replaced(manifest_text(), "{FILES}", file);
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("crc32c"), parse_manifest(text.data(), text.size()));
}

TEST(manifest_names_the_kv_type) {
  auto type_of = [](const char* kv) {
    std::string text = replaced(manifest_text(), "\"chunk\": 4", "\"chunk\": 4" + std::string(kv));
    text = replaced(text, "FILES", "");
    return parse_manifest(text.data(), text.size()).kv_type;
  };
  CHECK(type_of("") == ARK_KV_F16 && type_of(", \"kv\": null") == ARK_KV_F16);
  CHECK(type_of(", \"kv\": \"fp16\"") == ARK_KV_F16);
  CHECK(type_of(", \"kv\": \"fp32\"") == ARK_KV_F32);
  CHECK(type_of(", \"kv\": \"int8\"") == ARK_KV_I8);
  CHECK(type_of(", \"kv\": \"int4\"") == ARK_KV_I4);
}
