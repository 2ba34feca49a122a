#include <cstring>
#include <fstream>
#include <set>
#include <string>

#include "tuning.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace ark {
namespace {

std::string trimmed(const std::string& text) {
  size_t first = text.find_first_not_of(" \t");
  return first == std::string::npos ? ""
                                    : text.substr(first, text.find_last_not_of(" \t") + 1 - first);
}

#if defined(__x86_64__)
std::string find_name() {
  constexpr unsigned kFirst = 0x80000002, kLast = 0x80000004;
  char text[(kLast - kFirst + 1) * 16 + 1] = {};
  for (unsigned leaf = kFirst; leaf <= kLast; leaf++) {
    unsigned words[4] = {};
    if (!__get_cpuid(leaf, &words[0], &words[1], &words[2], &words[3])) return "";
    std::memcpy(text + (leaf - kFirst) * sizeof(words), words, sizeof(words));
  }
  // Virtual machines often give no more than the maker's name.
  unsigned signature = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &signature, &b, &c, &d)) return trimmed(text);
  unsigned family = (signature >> 8 & 15) + (signature >> 20 & 255);
  unsigned kind = (signature >> 4 & 15) + (signature >> 12 & 240);
  return trimmed(text) + " (family " + std::to_string(family) + ", model " + std::to_string(kind) +
         ")";
}
#elif defined(__APPLE__)
std::string find_name() {
  char text[256] = {};
  size_t size = sizeof(text) - 1;
  return sysctlbyname("machdep.cpu.brand_string", text, &size, nullptr, 0) == 0 ? text : "";
}
#else
// Arm cores say who made them and which they are; a system-on-chip may have several kinds.
std::string find_name() {
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> kinds;
  std::string line, maker;
  while (std::getline(file, line)) {
    size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    std::string key = trimmed(line.substr(0, colon));
    std::string value = trimmed(line.substr(colon + 1));
    if (key == "CPU implementer") maker = value;
    if (key == "CPU part") kinds.insert(maker + "/" + value);
  }
  std::string name;
  for (const std::string& kind : kinds) name += (name.empty() ? "Arm " : ", ") + kind;
  return name;
}
#endif

}  // namespace

const std::string& cpu_name() {
  static const std::string name = find_name();
  return name;
}

}  // namespace ark
