// The CPU in a device's place: its weights from the device's, its plan checked, and the choice.
#include <cstring>
#include <functional>
#include <random>

#include "check.h"
#include "device/choice.h"
#include "device/matrix_rows.h"
#include "device/opencl_device.h"
#include "device/repack.h"
#include "host_files.h"
#include "launch_files.h"

using namespace ark;
using namespace ark::testing;

namespace {

using Values = LaunchMatrix::Values;

// A weight of random words in two parts, and what the CPU is to have of it.
class Weight {
 public:
  static constexpr int64_t kOutputs = 37, kFirst = 20, kInputs = 64, kPadded = 48;

  Weight(Values values, int64_t bits, int64_t group, int64_t scale_words, DType codes, DType scales,
         DType offsets)
      : dtypes_{codes, scales, offsets} {
    LaunchMatrix& matrix = host_.matrix;
    matrix.values = values;
    matrix.inputs = kInputs;
    matrix.bits = bits;
    matrix.group = group;
    matrix.scale_words = scale_words;
    for (int64_t first : {int64_t{0}, kFirst}) {
      int64_t outputs = first == 0 ? kFirst : kOutputs - kFirst;
      LaunchMatrix::Part part{first, outputs, range(outputs * kInputs * bits / 32, false), 0};
      if (scale_words) part.scales = range(outputs * groups() * scale_words, true);
      matrix.parts.push_back(part);
    }
    host_.codes = target(codes, kInputs);
    if (scale_words) host_.scales = target(scales, groups());
    if (offsets != DType::i32) host_.offsets = target(offsets, groups());
    plan_.bytes = end_;
    plan_.matrices.push_back(host_);
  }

  std::string repacked() const {
    TemporaryBundle folder;
    write_file(folder.file("weights.bin"), bytes_);
    ThreadPool pool(3);
    Region region = repack(plan_, launches_, MappedFile(folder.file("weights.bin")), &pool);
    return std::string(region.data(), region.size());
  }

  // Number by number, as docs/bundle.md has the panels.
  std::string expected() const {
    std::string out(static_cast<size_t>(end_), 0);
    for (int64_t o = 0; o < kPadded; o++) {
      for (int64_t i = 0; i < kInputs; i++) put_code(&out, o, i);
      for (int64_t g = 0; g < (host_.matrix.scale_words ? groups() : 0); g++) put_group(&out, o, g);
    }
    return out;
  }

 private:
  int64_t groups() const { return kInputs / host_.matrix.group; }

  size_t range(int64_t words, bool scales) {
    bytes_.resize((bytes_.size() + 63) / 64 * 64);
    launches_.weights.push_back({"", static_cast<int64_t>(bytes_.size()), words * 4});
    for (int64_t word = 0; word < words; word++) {
      auto value = static_cast<uint32_t>(random_());
      if (scales) value = scale_word(word);
      bytes_.append(reinterpret_cast<const char*>(&value), 4);
    }
    return launches_.weights.size() - 1;
  }

  // Any scale, and a zero point that is one: 0 to 15 as a half, or as a float32.
  uint32_t scale_word(int64_t word) {
    if (host_.matrix.scale_words == 1) return (random_() % 16 ? 0x4800u : 0x4B00u) << 16 | 0x3456;
    float value = word % 2 ? static_cast<float>(random_() % 16) : 0.37f;
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
  }

  size_t target(DType dtype, int64_t columns) {
    PlanWeight weight{"", dtype, 2, {kOutputs, columns}, (end_ + 63) / 64 * 64, 0};
    weight.bytes = kPadded * columns * dtype_bits(dtype) / 8;
    end_ = weight.offset + weight.bytes;
    plan_.plan.weights.push_back(weight);
    return plan_.plan.weights.size() - 1;
  }

  uint32_t number(int64_t o, int64_t i) const {
    const LaunchMatrix::Part& part = host_.matrix.parts[o < kFirst ? 0 : 1];
    const char* words = bytes_.data() + launches_.weights[part.codes].offset;
    int64_t bit = ((o - part.first) * kInputs + i) * host_.matrix.bits;
    uint32_t word = word_at(words, bit / 32) >> bit % 32;
    return host_.matrix.bits == 32 ? word : word & ((1u << host_.matrix.bits) - 1);
  }

  void put_code(std::string* out, int64_t o, int64_t i) const {
    const int64_t lane = o % 16, panel = o / 16;
    const int64_t bits = host_.matrix.bits;
    uint32_t value = o < kOutputs ? number(o, i) : 0;
    size_t at = static_cast<size_t>(plan_.plan.weights[host_.codes].offset +
                                    panel * (16 * kInputs * bits / 8));
    int64_t shift = 0;
    if (bits >= 16) {
      at += static_cast<size_t>((i * 16 + lane) * bits / 8);
    } else {  // chunks of as many inputs as a word holds, [chunk][16][4]
      const int64_t chunk = 32 / bits;
      at += static_cast<size_t>((i / chunk * 16 + lane) * 4 + i % chunk % 4);
      shift = i % chunk / 4 * bits;
      if (bits == 8 && o < kOutputs) value ^= 0x80;
    }
    for (int64_t byte = 0; byte < std::max<int64_t>(bits / 8, 1); byte++) {
      char& place = (*out)[at + static_cast<size_t>(byte)];
      place = static_cast<char>(place | static_cast<char>(value << shift >> (8 * byte)));
    }
  }

  void put_group(std::string* out, int64_t o, int64_t g) const {
    const bool halves = host_.matrix.scale_words == 1;
    const size_t size = halves ? 2 : 4;
    const auto place = static_cast<size_t>(o / 16 * (16 * groups()) + g * 16 + o % 16);
    auto at = [&](size_t weight) {
      return &(*out)[static_cast<size_t>(plan_.plan.weights[weight].offset)];
    };
    const bool minimum = host_.matrix.values == Values::minimum;
    if (o >= kOutputs) {
      if (dtypes_[2] == DType::i8 && !minimum) at(host_.offsets)[place] = '\x80';
      return;
    }
    const LaunchMatrix::Part& part = host_.matrix.parts[o < kFirst ? 0 : 1];
    const char* words = bytes_.data() + launches_.weights[part.scales].offset;
    const int64_t index = (o - part.first) * groups() + g;
    const char* first = words + index * (halves ? 4 : 8);
    std::memcpy(at(host_.scales) + place * size, first, size);
    if (host_.offsets == HostMatrix::kNone) return;
    if (minimum) {
      std::memcpy(at(host_.offsets) + place * size, first + size, size);
      return;
    }
    uint32_t word = word_at(first, halves ? 0 : 1);
    float zero = halves ? (word >> 16 == 0x4800 ? 8.0f : 14.0f) : word_as_float(word);
    auto code = static_cast<unsigned>(zero);
    at(host_.offsets)[place] = static_cast<char>(dtypes_[2] == DType::i8 ? code ^ 0x80 : code);
  }

  std::mt19937 random_{7};
  std::string bytes_;
  LaunchPlan launches_;
  HostMatrix host_;
  HostPlan plan_;
  int64_t end_ = 0;
  DType dtypes_[3];
};

std::vector<float> logits_on_cpu(const std::shared_ptr<const Model>& model, int32_t on) {
  SessionOptions options = tiny_options(kContext, 2);
  options.cache_dtype = DType::f16;
  options.on = on;
  Session session(model, options);
  CHECK(session.choice().on == ARK_ON_CPU);
  std::vector<int32_t> tokens{1, 31, 2, 3, 4, 5, 0};
  std::vector<float> logits(tokens.size() * kVocab);
  session.append(tokens.data(), tokens.size(), true, logits.data());
  return logits;
}

}  // namespace

TEST(weights_are_repacked_as_the_cpu_backend_packs_them) {
  const DType none = DType::i32;
  for (const Weight& weight :
       {Weight(Values::f32, 32, 64, 0, DType::f32, none, none),
        Weight(Values::f16, 16, 64, 0, DType::f16, none, none),
        Weight(Values::bf16, 16, 64, 0, DType::bf16, none, none),
        Weight(Values::offset, 2, 64, 1, DType::u2, DType::f16, none),
        Weight(Values::offset, 2, 16, 2, DType::u2, DType::f32, none),
        Weight(Values::offset, 4, 32, 1, DType::u4, DType::f16, none),
        Weight(Values::offset, 4, 16, 1, DType::u4, DType::f16, DType::u8),
        Weight(Values::offset, 4, 64, 2, DType::u4, DType::f32, DType::u8),
        Weight(Values::minimum, 4, 32, 1, DType::u4, DType::f16, DType::f16),
        Weight(Values::minimum, 4, 32, 2, DType::u4, DType::f32, DType::f32),
        Weight(Values::offset, 8, 32, 1, DType::i8, DType::f16, none),
        Weight(Values::offset, 8, 32, 2, DType::i8, DType::f32, DType::i8),
        Weight(Values::offset, 8, 16, 1, DType::i8, DType::f16, DType::i8)}) {
    CHECK(weight.repacked() == weight.expected());
  }
}

TEST(a_bundle_for_a_device_runs_on_the_cpu) {
  auto model = load(host_files());
  std::vector<float> logits = logits_on_cpu(model, ARK_ON_CPU);
  // The same plan with the repacked weights in its weights.bin.
  ThreadPool pool(2);
  std::shared_ptr<const Region> weights = model->host_weights(&pool);
  CHECK(weights == model->host_weights(&pool));
  Files files;
  files.plan = host_files().host;
  files.weights = std::string(weights->data(), weights->size());
  CHECK(logits == logits_on_cpu(load(files), ARK_ON_FASTER));
  SessionOptions options = tiny_options();
  CHECK(plan_memory(*model, options).weights == static_cast<int64_t>(model->weights_bytes()));
  options.on = ARK_ON_CPU;
  CHECK(plan_memory(*model, options).weights == 2048);
}

// The source holds none of the kernels, if there is a driver at all.
TEST(a_device_that_cannot_run_is_replaced_unless_it_was_asked_for) {
  auto model = load(host_files());
  CHECK(logits_on_cpu(model, ARK_ON_FASTER) == logits_on_cpu(model, ARK_ON_CPU));
  SessionOptions options = tiny_options();
  options.cache_dtype = DType::f16;
  CHECK(!Session(model, options).choice().why.empty());
  options.on = ARK_ON_DEVICE;
  CHECK_ERROR(ARK_EXECUTOR_FAILED, {}, Session(model, options));
}

TEST(what_a_bundle_cannot_run_on_is_refused) {
  ark_session_options options{};
  options.size = sizeof(options);
  options.kv_type = ARK_KV_DEFAULT;
  options.on = ARK_ON_DEVICE;
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("nothing for a device"),
              resolve_options(*tiny_model(), &options));
  options.on = ARK_ON_CPU;
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("no plan for the CPU"),
              resolve_options(*load(launch_files()), &options));
  options.on = 3;
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("on 3"), resolve_options(*tiny_model(), &options));
}

TEST(a_plan_for_the_cpu_that_lies_is_refused) {
  const struct {
    const char *from, *to, *says;
  } kLies[] = {
      {"\"weights_bytes\": 2048", "\"weights_bytes\": 2049", "weights_bytes"},
      {"\"offset\": 1024", "\"offset\": 1088", "'norm' at offset 1088"},
      {"\"offset\": 1024, \"bytes\": 64", "\"offset\": 1024, \"bytes\": 65", "with 65 bytes"},
      {"\"shape\": [32, 16], \"offset\": 0", "\"shape\": [16, 32], \"offset\": 0", "another type"},
      {"\"dtype\": \"f16\", \"shape\": [32, 16]", "\"dtype\": \"bf16\", \"shape\": [32, 16]",
       "another type"},
      {"{\"vector\": \"short\"}, ", "", "nothing for 'short'"},
      {"{\"vector\": \"short\"}", "{\"vector\": \"norm\"}", "'norm' a second time"},
      {"{\"vector\": \"short\"}", "{\"vector\": \"qkv.codes\"}", "'qkv.codes'"},
      {"\"codes\": \"table.20\"", "\"codes\": \"table.0\"", "a range of 640 bytes"},
      {"\"codes\": \"table.20\"", "\"codes\": \"none\"", "'none'"},
      {"\"offsets\": \"o.minimums\"", "\"more\": \"o.minimums\"", "offsets"},
      {"\"values\": \"minimum\"", "\"values\": \"offset\"", "another type"},
      {"\"output_rows\": 2", "\"output_rows\": 3", "output_rows"},
      {"\"chunk\": 4", "\"chunk\": 3", "chunk"},
      {"\"heads\": 2", "\"heads\": 3", "'attention'"}};
  for (const auto& lie : kLies) {
    Files files = host_files();
    files.host = replaced(files.host, lie.from, lie.to);
    CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("plan.cpu.json", lie.says), load(files));
  }
}

TEST(the_faster_of_both_is_chosen) {
  Choice choice;
  choice.device_speeds = {1000, 10};  // 0.512 and 12.8 seconds
  choice.cpu_speeds = {50, 50};       // 10.24 and 2.56
  decide(&choice);
  CHECK(choice.on == ARK_ON_CPU);
  CHECK(choice.why.find("13.3 s there and 12.8 s on the CPU") != std::string::npos);
  choice.device_speeds.decode = 20;
  decide(&choice);
  CHECK(choice.on == ARK_ON_DEVICE);
  Choice read;
  CHECK(parse_choice(choice_text(choice), &read));
  CHECK(read.on == choice.on && read.why == choice.why);
  CHECK(read.cpu_speeds.prefill == 50 && read.device_speeds.decode == 20);
  for (const char* text :
       {"", "1 2\n3\n", "1 2\n3 x\n", "1 2\n3 0\n", "1 2\n-3 4\n", "1 nan 3 4"}) {
    CHECK(!parse_choice(text, &read));
  }
}

TEST(versions_of_opencl_are_compared) {
  for (const char* version : {"OpenCL 1.2 pocl", "OpenCL 3.0 ", "OpenCL C 1.2", "OpenCL 10.0"}) {
    CHECK(is_new_enough(version));
  }
  for (const char* version : {"OpenCL 1.1 Mesa", "OpenCL C 1.1", "OpenCL 0.9", "OpenCL", "", "2"}) {
    CHECK(!is_new_enough(version));
  }
}
