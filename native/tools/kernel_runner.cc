// Runs kernels on arrays from a file, so that the same tests serve every platform and sanitizer.
//
//   kernel_runner CASES RESULTS [REPEATS]
//   kernel_runner --isas   (one line per kernel set, best first: its name and its own kernels)
//   kernel_runner --read MEBIBYTES THREADS
//
// CASES, little-endian: "ARKCASE1", u32 count, then per case
//   string kernel, string isa, i64 tokens, past, total, threads,
//   u32 tokens of a tree (0: none), their u64 ancestors, their i32 depths,
//   u32 attributes, each string name, f64 value,
//   u32 buffers, each u64 bytes, data,
//   u32 operands, each i32 buffer (-1: absent), u64 offset, i32 dtype, i32 rank, i64 shape[4],
//     i64 stride
// where a string is u32 bytes, text. RESULTS: "ARKDONE1", u32 count, then per case
//   string refusal (empty: the kernel ran), f64 seconds of the fastest of REPEATS runs,
//   u32 buffers, each u64 bytes, data after the run.
// --read prints how many GB/s the same number of threads can read from memory.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bind.h"
#include "isa.h"
#include "kernel.h"
#include "thread_pool.h"

namespace {

struct Free {
  void operator()(void* p) const { std::free(p); }
};
struct Buffer {
  std::unique_ptr<char, Free> data;  // exactly as long as asked, so that a sanitizer sees its end
  size_t bytes = 0;

  explicit Buffer(size_t n) : bytes(n) {
    void* p = nullptr;
    if (posix_memalign(&p, 64, n ? n : 1) != 0) throw std::runtime_error("out of memory");
    data.reset(static_cast<char*>(p));
  }
};

class Reader {
 public:
  explicit Reader(const char* path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(std::string("cannot read ") + path);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
  }
  void copy(void* to, size_t n) {
    if (n > bytes_.size() - at_) throw std::runtime_error("the case file ends early");
    if (n) std::memcpy(to, bytes_.data() + at_, n);
    at_ += n;
  }
  template <typename T>
  T value() {
    T v;
    copy(&v, sizeof(v));
    return v;
  }
  std::string text() {
    std::string s(value<uint32_t>(), '\0');
    copy(s.data(), s.size());
    return s;
  }

 private:
  std::string bytes_;
  size_t at_ = 0;
};

struct Case {
  std::string kernel, isa;
  ark::Call call{};
  int64_t threads = 1;
  std::vector<std::pair<std::string, double>> attributes;
  std::vector<Buffer> buffers;
  std::vector<ark::Operand> operands;
  std::vector<uint64_t> ancestors;
  std::vector<int32_t> depths;
};

Case read_case(Reader* in) {
  Case c;
  c.kernel = in->text();
  c.isa = in->text();
  c.call.tokens = in->value<int64_t>();
  c.call.past = in->value<int64_t>();
  c.call.total = in->value<int64_t>();
  c.threads = in->value<int64_t>();
  auto tree = in->value<uint32_t>();
  for (uint32_t i = 0; i < tree; i++) c.ancestors.push_back(in->value<uint64_t>());
  for (uint32_t i = 0; i < tree; i++) c.depths.push_back(in->value<int32_t>());
  for (uint32_t n = in->value<uint32_t>(); n > 0; n--) {
    std::string name = in->text();
    c.attributes.emplace_back(name, in->value<double>());
  }
  for (uint32_t n = in->value<uint32_t>(); n > 0; n--) {
    c.buffers.emplace_back(in->value<uint64_t>());
    in->copy(c.buffers.back().data.get(), c.buffers.back().bytes);
  }
  for (uint32_t n = in->value<uint32_t>(); n > 0; n--) {
    ark::Operand o{};
    auto buffer = in->value<int32_t>();
    auto offset = in->value<uint64_t>();
    if (buffer >= 0) o.data = c.buffers.at(static_cast<size_t>(buffer)).data.get() + offset;
    o.dtype = static_cast<ark::DType>(in->value<int32_t>());
    o.rank = in->value<int32_t>();
    for (int64_t& dimension : o.shape) dimension = in->value<int64_t>();
    o.stride = in->value<int64_t>();
    c.operands.push_back(o);
  }
  return c;
}

// The kernel's refusal; empty when it ran.
std::string run_case(Case* c, int repeats, double* seconds) {
  ark::Isa isa;
  const std::vector<ark::Isa>& usable = ark::usable_isas();
  if (!ark::parse_isa(c->isa, &isa) ||
      std::find(usable.begin(), usable.end(), isa) == usable.end()) {
    throw std::runtime_error("cannot run the kernel set " + c->isa);
  }
  const ark::KernelEntry* entry = ark::find_kernel(c->kernel.c_str(), isa);
  if (!entry || entry->isa != isa) throw std::runtime_error("no " + c->isa + " " + c->kernel);
  size_t expected = 0;
  while (entry->operands[expected]) expected++;
  while (c->operands.size() < expected && entry->operands[c->operands.size()][0] == '?') {
    c->operands.push_back({});  // the last ones may be left out
  }
  if (expected != c->operands.size()) return "wrong number of operands";
  std::string wrong;
  std::vector<double> values;
  if (!ark::match_attributes(*entry, c->attributes, &values, &wrong)) return wrong;
  ark::ThreadPool pool(static_cast<int32_t>(c->threads));
  c->call.parallel = pool.parallel();
  c->call.operands = c->operands.data();
  c->call.attributes = values.data();
  if (!c->depths.empty()) {
    c->call.ancestors = c->ancestors.data();
    c->call.depths = c->depths.data();
  }
  if (const char* refusal = entry->check(c->call)) return refusal;
  Buffer scratch(entry->scratch ? entry->scratch(c->call) : 0);
  // Whatever a kernel reads from scratch it must have written.
  std::memset(scratch.data.get(), 0xff, scratch.bytes);
  c->call.scratch = scratch.data.get();
  for (int i = 0; i < repeats; i++) {
    auto start = std::chrono::steady_clock::now();
    entry->run(c->call);
    std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (i == 0 || took.count() < *seconds) *seconds = took.count();
  }
  return "";
}

template <typename T>
void put(std::string* out, T v) {
  out->append(reinterpret_cast<const char*>(&v), sizeof(v));
}

void run_file(const char* cases_path, const char* results_path, int repeats) {
  Reader in(cases_path);
  char magic[8];
  in.copy(magic, sizeof(magic));
  if (std::memcmp(magic, "ARKCASE1", 8) != 0) throw std::runtime_error("not a case file");
  auto count = in.value<uint32_t>();
  std::string out = "ARKDONE1";
  put(&out, count);
  for (uint32_t i = 0; i < count; i++) {
    Case c = read_case(&in);
    double seconds = 0;
    std::string refusal = run_case(&c, repeats, &seconds);
    put(&out, static_cast<uint32_t>(refusal.size()));
    out += refusal;
    put(&out, seconds);
    put(&out, static_cast<uint32_t>(c.buffers.size()));
    for (const Buffer& buffer : c.buffers) {
      put(&out, static_cast<uint64_t>(buffer.bytes));
      out.append(buffer.data.get(), buffer.bytes);
    }
  }
  std::ofstream file(results_path, std::ios::binary);
  file.write(out.data(), static_cast<std::streamsize>(out.size()));
  if (!file.flush()) throw std::runtime_error(std::string("cannot write ") + results_path);
}

struct Reading {
  const uint64_t* words;
  size_t words_per_part;
  uint64_t sums[1024];
};

void read_part(void* user, int64_t index, int32_t) {
  auto* r = static_cast<Reading*>(user);
  const uint64_t* p = r->words + static_cast<size_t>(index) * r->words_per_part;
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= r->words_per_part; i += 8) {
    for (size_t j = 0; j < 8; j++) sums[j] += p[i + j];
  }
  for (uint64_t s : sums) r->sums[index] += s;
}

void measure_read(size_t mebibytes, int threads) {
  Buffer buffer(mebibytes << 20);
  std::memset(buffer.data.get(), 1, buffer.bytes);
  ark::ThreadPool pool(threads);
  constexpr int64_t kParts = 256;
  Reading reading{
      reinterpret_cast<const uint64_t*>(buffer.data.get()), buffer.bytes / kParts / 8, {}};
  double best = 0;
  for (int i = 0; i < 10; i++) {
    auto start = std::chrono::steady_clock::now();
    pool.run(kParts, read_part, &reading);
    std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(buffer.bytes) / took.count() / 1e9);
  }
  std::printf("%.2f\n", best);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc == 2 && std::strcmp(argv[1], "--isas") == 0) {
      for (ark::Isa isa : ark::usable_isas()) {
        std::printf("%s", ark::isa_name(isa));
        for (int i = 0; const ark::KernelEntry* entry = ark::kernel_at(i); i++) {
          if (entry->isa == isa) std::printf(" %s", entry->name);
        }
        std::printf("\n");
      }
    } else if (argc == 4 && std::strcmp(argv[1], "--read") == 0) {
      measure_read(std::stoul(argv[2]), std::stoi(argv[3]));
    } else if (argc == 3 || argc == 4) {
      run_file(argv[1], argv[2], argc == 4 ? std::stoi(argv[3]) : 1);
    } else {
      std::fputs("usage: kernel_runner CASES RESULTS [REPEATS]\n", stderr);
      return 2;
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "kernel_runner: %s\n", e.what());
    return 1;
  }
  return 0;
}
