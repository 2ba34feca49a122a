// What this machine can give at most, as one JSON object, for benchmarks to compare with.
//
//   machine_limits [THREADS [SECONDS_PER_MEASUREMENT [MEBIBYTES]]]
//
// read_bytes_per_s: from memory, by 1 and by THREADS threads, out of MEBIBYTES that are far more
// than the caches. int8: operations per second (a product and a sum are two) of each instruction
// that multiplies int8. fp32: the same of fused multiply-add. It needs no other file:
//   c++ -O2 -std=c++17 -pthread machine_limits.cc -o machine_limits
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Hides a register's origin, so that a loop is neither folded nor moved.
#define KEEP(value, constraint) asm volatile("" : "+" constraint(value))
// Independent sums, written out: an array of them would live in memory.
#define FOUR(f, n) f(n##0) f(n##1) f(n##2) f(n##3)
#define TWELVE(f) FOUR(f, a) FOUR(f, b) FOUR(f, c)
#define TWENTY(f) TWELVE(f) FOUR(f, d) FOUR(f, e)

// ---- rates of instructions: each does `rounds` rounds and gives the operations of one round ----

#if defined(__x86_64__)
#define TARGET(isa) __attribute__((target(isa), noinline))

TARGET("avx2") double maddubs_avx2(int64_t rounds) {
  __m256i x = _mm256_set1_epi8(1), y = _mm256_set1_epi8(2);
#define START(sum) __m256i sum = _mm256_setzero_si256();
#define STEP(sum) \
  KEEP(y, "x");   \
  sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(x, y));
#define END(sum) KEEP(sum, "x");
  TWELVE(START)
  for (int64_t i = 0; i < rounds; ++i) {
    TWELVE(STEP)
  }
  TWELVE(END)
#undef STEP
  return 12 * 64.0;
}

TARGET("avx2,avxvnni") double dpbusd_avx2(int64_t rounds) {
  __m256i x = _mm256_set1_epi8(1), y = _mm256_set1_epi8(2);
#define STEP(sum) \
  KEEP(y, "x");   \
  sum = _mm256_dpbusd_avx_epi32(sum, x, y);
  TWELVE(START)
  for (int64_t i = 0; i < rounds; ++i) {
    TWELVE(STEP)
  }
  TWELVE(END)
#undef START
#undef STEP
  return 12 * 64.0;
}

TARGET("avx2,fma") double fma_avx2(int64_t rounds) {
  __m256 x = _mm256_set1_ps(1e-6f), y = _mm256_set1_ps(1e-6f);
#define START(sum) __m256 sum = _mm256_setzero_ps();
#define STEP(sum) \
  KEEP(y, "x");   \
  sum = _mm256_fmadd_ps(x, y, sum);
  TWELVE(START)
  for (int64_t i = 0; i < rounds; ++i) {
    TWELVE(STEP)
  }
  TWELVE(END)
#undef START
#undef STEP
#undef END
  return 12 * 16.0;
}

// 512-bit products: 10 sums read low, 20 do not.
TARGET("avx512f,avx512vnni") double dpbusd_avx512(int64_t rounds) {
  __m512i x = _mm512_set1_epi32(0x01010101), y = _mm512_set1_epi32(0x02020202);
#define START(sum) __m512i sum = _mm512_setzero_si512();
#define STEP(sum) \
  KEEP(y, "v");   \
  sum = _mm512_dpbusd_epi32(sum, x, y);
#define END(sum) KEEP(sum, "v");
  TWENTY(START)
  for (int64_t i = 0; i < rounds; ++i) {
    TWENTY(STEP)
  }
  TWENTY(END)
#undef START
#undef STEP
  return 20 * 128.0;
}

TARGET("avx512f") double fma_avx512(int64_t rounds) {
  __m512 x = _mm512_set1_ps(1e-6f), y = _mm512_set1_ps(1e-6f);
#define START(sum) __m512 sum = _mm512_setzero_ps();
#define STEP(sum) \
  KEEP(y, "v");   \
  sum = _mm512_fmadd_ps(x, y, sum);
  TWENTY(START)
  for (int64_t i = 0; i < rounds; ++i) {
    TWENTY(STEP)
  }
  TWENTY(END)
  return 20 * 32.0;
}

bool has_avx_vnni() {
  uint32_t a = 7, b = 0, c = 1, d = 0;
  asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  return __builtin_cpu_supports("avx2") && (a >> 4 & 1);
}

// A prefetch 4 KiB ahead: nearer and farther ones read about as much, none reads less.
TARGET("avx2") void read_avx2(const char* data, size_t bytes) {
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  for (size_t i = 0; i < bytes; i += 128) {
    const auto* at = reinterpret_cast<const __m256i*>(data + i);
    _mm_prefetch(data + i + 4096, _MM_HINT_T0);
    _mm_prefetch(data + i + 4160, _MM_HINT_T0);
    a = _mm256_xor_si256(a, _mm256_load_si256(at));
    b = _mm256_xor_si256(b, _mm256_load_si256(at + 1));
    c = _mm256_xor_si256(c, _mm256_load_si256(at + 2));
    d = _mm256_xor_si256(d, _mm256_load_si256(at + 3));
  }
  a = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
  KEEP(a, "x");
}
#elif defined(__aarch64__)

double fma_neon(int64_t rounds) {
  float32x4_t x = vdupq_n_f32(1e-6f), y = vdupq_n_f32(1e-6f);
#define START(sum) float32x4_t sum = vdupq_n_f32(0);
#define STEP(sum) \
  KEEP(y, "w");   \
  sum = vfmaq_f32(sum, x, y);
#define END(sum) KEEP(sum, "w");
  TWENTY(START)
  for (int64_t i = 0; i < rounds; ++i) {
    TWENTY(STEP)
  }
  TWENTY(END)
#undef START
#undef STEP
  return 20 * 8.0;
}

// Written in assembly: the intrinsic would need the instruction set for the whole file.
__attribute__((target("arch=armv8.2-a+dotprod"), noinline)) double sdot(int64_t rounds) {
  int8x16_t x = vdupq_n_s8(1), y = vdupq_n_s8(2);
#define START(sum) int32x4_t sum = vdupq_n_s32(0);
#define STEP(sum) asm volatile("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(x), "w"(y));
  TWENTY(START)
  for (int64_t i = 0; i < rounds; ++i) {
    TWENTY(STEP)
  }
  TWENTY(END)
#undef START
#undef STEP
  return 20 * 32.0;
}

double smlal(int64_t rounds) {
  int8x8_t x = vdup_n_s8(1), y = vdup_n_s8(2);
#define START(sum) int16x8_t sum = vdupq_n_s16(0);
#define STEP(sum) \
  KEEP(y, "w");   \
  sum = vmlal_s8(sum, x, y);
  TWENTY(START)
  for (int64_t i = 0; i < rounds; ++i) {
    TWENTY(STEP)
  }
  TWENTY(END)
  return 20 * 16.0;
}

bool has_dotprod() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) >> 20 & 1;
#else
  return true;
#endif
}
#endif

void read_plain(const char* data, size_t bytes) {
  uint64_t a = 0, b = 0, c = 0, d = 0, words[8];
  for (size_t i = 0; i < bytes; i += 64) {
    __builtin_prefetch(data + i + 4096);
    std::memcpy(words, data + i, 64);
    a ^= words[0] ^ words[1];
    b ^= words[2] ^ words[3];
    c ^= words[4] ^ words[5];
    d ^= words[6] ^ words[7];
  }
  a ^= b ^ c ^ d;
  KEEP(a, "r");
}

double fma_plain(int64_t rounds) {
  float sums[8] = {};
  for (int64_t i = 0; i < rounds; ++i) {
    for (float& sum : sums) {
      float x = 1e-6f;
      KEEP(x, "m");
      sum += x * x;
    }
  }
  for (float& sum : sums) KEEP(sum, "m");
  return 8 * 2.0;
}

// ---- many threads at once --------------------------------------------------------------------

// Runs body(thread) over and over on all threads for some seconds; body gives the work it did.
// The sum of all threads' work per second.
template <typename Body>
double rate(int threads, double seconds, Body body) {
  std::atomic<int> ready{0};
  std::vector<double> rates(threads, 0.0);
  auto run = [&](int thread) {
    body(thread);  // wakes the core and its caches
    ready.fetch_add(1);
    while (ready.load() < threads) {
    }
    auto start = Clock::now();
    double work = 0, elapsed = 0;
    while (elapsed < seconds) {
      work += body(thread);
      elapsed = since(start);
    }
    rates[thread] = work / elapsed;
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(run, i);
  run(0);
  for (auto& other : others) other.join();
  double sum = 0;
  for (double one : rates) sum += one;
  return sum;
}

double operations(int threads, double seconds, double (*kernel)(int64_t)) {
  constexpr int64_t kRounds = 20000;
  return rate(threads, seconds, [&](int) { return kRounds * kernel(kRounds); });
}

// Each thread walks through a part of its own. The margin is what the prefetch runs ahead.
class Memory {
 public:
  static constexpr size_t kBlock = 1 << 20, kMargin = 8192, kPage = 2 << 20;

  explicit Memory(size_t bytes) : bytes_(bytes) {
    void* data = nullptr;
    if (posix_memalign(&data, kPage, bytes + kMargin) != 0) {
      std::fprintf(stderr, "machine_limits: no room for %zu bytes\n", bytes);
      std::exit(1);
    }
    data_ = static_cast<char*>(data);
#if defined(__linux__)
    madvise(data_, bytes + kMargin, MADV_HUGEPAGE);  // advice: without it the figure is lower
#endif
    std::memset(data_, 1, bytes + kMargin);
  }
  ~Memory() { std::free(data_); }

  double bandwidth(int threads, double seconds, void (*read)(const char*, size_t)) const {
    size_t part = bytes_ / threads / kBlock * kBlock;
    std::vector<size_t> at(threads, 0);
    return rate(threads, seconds, [&, this](int thread) {
      read(data_ + thread * part + at[thread], kBlock);
      at[thread] = (at[thread] + kBlock) % part;
      return static_cast<double>(kBlock);
    });
  }

 private:
  char* data_;
  size_t bytes_;
};

struct Instruction {
  const char* name;
  double (*kernel)(int64_t);
};

int usage() {
  std::fprintf(stderr, "usage: machine_limits [THREADS [SECONDS [MEBIBYTES]]]\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  unsigned cores = std::thread::hardware_concurrency();
  int threads = argc > 1 ? std::atoi(argv[1]) : static_cast<int>(cores ? cores : 1);
  double seconds = argc > 2 ? std::atof(argv[2]) : 0.25;
  int mebibytes = argc > 3 ? std::atoi(argv[3]) : 1024;
  if (argc > 4 || threads < 1 || threads > 1024 || !(seconds > 0) || mebibytes < 2 * threads) {
    return usage();
  }
  std::vector<Instruction> int8, fp32;
  void (*read)(const char*, size_t) = read_plain;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    read = read_avx2;
    int8.push_back({"avx2", maddubs_avx2});
    fp32.push_back({"avx2", fma_avx2});
  }
  if (has_avx_vnni()) int8.push_back({"avxvnni", dpbusd_avx2});
  if (__builtin_cpu_supports("avx512f")) fp32.push_back({"avx512", fma_avx512});
  if (__builtin_cpu_supports("avx512vnni")) int8.push_back({"avx512vnni", dpbusd_avx512});
#elif defined(__aarch64__)
  int8.push_back({"neon", smlal});
  if (has_dotprod()) int8.push_back({"dotprod", sdot});
  fp32.push_back({"neon", fma_neon});
#endif
  if (fp32.empty()) fp32.push_back({"scalar", fma_plain});

  auto print = [&](const char* name, const std::vector<Instruction>& instructions) {
    std::printf(",\n \"%s\": {", name);
    const char* comma = "";
    for (const Instruction& one : instructions) {
      std::printf("%s\"%s\": %.6g", comma, one.name, operations(threads, seconds, one.kernel));
      comma = ", ";
    }
    std::printf("}");
  };
  std::printf("{\"threads\": %d,\n \"read_bytes_per_s\": {", threads);
  {
    Memory memory(static_cast<size_t>(mebibytes) << 20);
    if (threads > 1) std::printf("\"1\": %.6g, ", memory.bandwidth(1, seconds, read));
    std::printf("\"%d\": %.6g}", threads, memory.bandwidth(threads, seconds, read));
  }
  print("int8", int8);
  print("fp32", fp32);
  std::printf("}\n");
  return 0;
}
