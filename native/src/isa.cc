#include "isa.h"

#include <algorithm>
#include <sstream>

#include "cpu_features.h"

namespace ark {
namespace {

struct Name {
  Isa isa;
  const char* text;
};
constexpr Name kNames[] = {
    {Isa::scalar, "scalar"},
    {Isa::avx2, "avx2"},
    {Isa::avxvnni, "avxvnni"},
    {Isa::avx512, "avx512"},
    {Isa::avx512vnni, "avx512vnni"},
    {Isa::amx, "amx"},
    {Isa::neon, "neon"},
    {Isa::dotprod, "dotprod"},
    {Isa::i8mm, "i8mm"},
};

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

}  // namespace ark
