#include "cpu_features.h"

#include <cstddef>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace ark {
namespace {

// Not every compiler that knows these instructions knows their names in __builtin_cpu_supports.
#if defined(__x86_64__)
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}
#endif

#if defined(__x86_64__) && !defined(ARK_SIMDE)
bool has_avxvnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

// Linux gives a process tile registers when it asks for them, and to all its threads.
bool allow_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // the number of their state in XCR0
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25, kOsSavesState = 1u << 27;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kTile) || !(d & kInt8)) return false;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kOsSavesState)) return false;
  constexpr unsigned kTileStates = 3u << 17;  // configuration and data
  unsigned low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kTileStates) == kTileStates && allow_tiles();
}
#endif

#if defined(__aarch64__)
#if defined(__linux__)
// Bits of AT_HWCAP and AT_HWCAP2 in Linux's ABI.
bool has_dotprod() { return getauxval(AT_HWCAP) >> 20 & 1; }
bool has_i8mm() { return getauxval(AT_HWCAP2) >> 13 & 1; }
#elif defined(__APPLE__)
bool has(const char* feature) {
  int value = 0;
  size_t size = sizeof(value);
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value;
}
bool has_dotprod() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has("hw.optional.arm.FEAT_I8MM"); }
#else
bool has_dotprod() { return false; }
bool has_i8mm() { return false; }
#endif
#endif

}  // namespace

#if defined(__x86_64__)
bool cpu_runs(Isa isa) {
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  if (isa == Isa::scalar) return true;
  if (isa == Isa::avx2) return avx2;
#if defined(ARK_SIMDE)
  return avx2 && isa < Isa::neon;
#else
  if (isa == Isa::avxvnni) return avx2 && has_avxvnni();
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (isa == Isa::avx512) return avx512;
  bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  if (isa == Isa::avx512vnni) return vnni;
  return isa == Isa::amx && vnni && has_amx();
#endif
}
#elif defined(__aarch64__)
bool cpu_runs(Isa isa) {
  if (isa == Isa::dotprod) return has_dotprod();
  if (isa == Isa::i8mm) return has_dotprod() && has_i8mm();
  return isa == Isa::scalar || isa == Isa::neon;
}
#else
bool cpu_runs(Isa isa) { return isa == Isa::scalar; }
#endif

bool cpu_has_crc32() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("sse4.2");
#elif defined(__aarch64__) && defined(__linux__)
  return getauxval(AT_HWCAP) >> 7 & 1;
#elif defined(__aarch64__) && defined(__APPLE__)
  return true;
#else
  return false;
#endif
}

}  // namespace ark
