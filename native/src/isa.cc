#include "isa.h"

#include <algorithm>
#include <sstream>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace ark {
namespace {

struct Name {
  Isa isa;
  const char* text;
};
constexpr Name kNames[] = {
    {Isa::scalar, "scalar"},         {Isa::avx2, "avx2"}, {Isa::avx512, "avx512"},
    {Isa::avx512vnni, "avx512vnni"}, {Isa::neon, "neon"}, {Isa::dotprod, "dotprod"},
};

#if defined(__x86_64__)
bool cpu_runs(Isa isa) {
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
              __builtin_cpu_supports("f16c");
  if (isa == Isa::scalar) return true;
  if (isa == Isa::avx2) return avx2;
#if defined(ARK_SIMDE)
  return avx2 && (isa == Isa::avx512 || isa == Isa::avx512vnni);
#else
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (isa == Isa::avx512) return avx512;
  return isa == Isa::avx512vnni && avx512 && __builtin_cpu_supports("avx512vnni");
#endif
}
#elif defined(__aarch64__)
#if defined(__linux__)
// Bits of AT_HWCAP in Linux's ABI.
bool has_dotprod() { return (getauxval(AT_HWCAP) >> 20) & 1; }
#elif defined(__APPLE__)
bool has_dotprod() {
  int value = 0;
  size_t size = sizeof(value);
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, nullptr, 0) == 0 && value;
}
#else
bool has_dotprod() { return false; }
#endif
bool cpu_runs(Isa isa) {
  if (isa == Isa::dotprod) return has_dotprod();
  return isa == Isa::scalar || isa == Isa::neon;
}
#else
bool cpu_runs(Isa isa) { return isa == Isa::scalar; }
#endif

std::vector<Isa> find_usable() {
  std::vector<Isa> found;
  std::istringstream built(ARK_BUILT_ISAS);
  std::string name;
  Isa isa;
  while (built >> name) {
    if (parse_isa(name, &isa) && cpu_runs(isa)) found.push_back(isa);
  }
  std::sort(found.begin(), found.end(), [](Isa a, Isa b) { return a > b; });
  return found;
}

}  // namespace

const char* isa_name(Isa isa) {
  for (const Name& name : kNames) {
    if (name.isa == isa) return name.text;
  }
  return "unknown";
}

bool parse_isa(const std::string& text, Isa* isa) {
  for (const Name& name : kNames) {
    if (text == name.text) {
      *isa = name.isa;
      return true;
    }
  }
  return false;
}

const std::vector<Isa>& usable_isas() {
  static const std::vector<Isa> found = find_usable();
  return found;
}

bool cpu_has_crc32() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("sse4.2");
#elif defined(__aarch64__) && defined(__linux__)
  return (getauxval(AT_HWCAP) >> 7) & 1;
#elif defined(__aarch64__) && defined(__APPLE__)
  return true;
#else
  return false;
#endif
}

}  // namespace ark
