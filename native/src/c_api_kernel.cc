// ark_kernel_run: one kernel on arrays of the caller's, for tests.
#include <string>
#include <utility>
#include <vector>

#include "arkinfer.h"
#include "bind.h"
#include "isa.h"
#include "last_error.h"
#include "memory.h"
#include "thread_pool.h"

namespace ark {
namespace {

std::vector<Operand> read_operands(const KernelEntry& entry, const ark_operand* given,
                                   size_t count) {
  std::vector<Operand> operands;
  for (const char* const* name = entry.operands; *name; name++) {
    if (operands.size() >= count) {
      if (**name != '?') break;
      operands.push_back({});  // the last ones may be left out
      continue;
    }
    const ark_operand& from = given[operands.size()];
    if (!from.data && **name != '?') {
      fail(ARK_INVALID_ARGUMENT, "no operand " + quote(*name), "that operand", "");
    }
    if (from.rank < 0 || from.rank > 4 || from.dtype < 0 ||
        from.dtype > static_cast<int32_t>(DType::u2)) {
      fail(ARK_INVALID_ARGUMENT, "operand " + quote(*name) + " has a bad rank or dtype",
           "a rank up to 4 and one of ark::DType", "");
    }
    operands.push_back({from.data,
                        {from.shape[0], from.shape[1], from.shape[2], from.shape[3]},
                        from.stride,
                        from.rank,
                        static_cast<DType>(from.dtype)});
  }
  size_t expected = 0;
  while (entry.operands[expected]) expected++;
  if (operands.size() != expected || count > expected) {
    fail(ARK_INVALID_ARGUMENT, std::to_string(count) + " operands", std::to_string(expected), "");
  }
  return operands;
}

void run_kernel(const char* kernel, const char* isa_text, const ark_operand* operands,
                size_t operand_count, const char* const* attribute_names, const double* attributes,
                size_t attribute_count, Call call, int32_t threads) {
  Isa isa = choose_isa(isa_text);
  const KernelEntry* entry = find_kernel(kernel, isa);
  if (!entry) {
    fail(ARK_INVALID_ARGUMENT, "no kernel " + quote(kernel), "one of this runtime's", "");
  }
  if (threads < 1 || threads > 1024 || call.tokens < 1 || call.past < 0 ||
      call.total < call.past + call.tokens) {
    fail(ARK_INVALID_ARGUMENT, "threads, tokens, past or total out of range",
         "1 to 1024 threads, at least one token, total of at least past + tokens", "");
  }
  std::vector<Operand> bound = read_operands(*entry, operands, operand_count);
  std::vector<std::pair<std::string, double>> given;
  for (size_t i = 0; i < attribute_count; i++) {
    given.emplace_back(attribute_names[i], attributes[i]);
  }
  std::string wrong;
  std::vector<double> values;
  if (!match_attributes(*entry, given, &values, &wrong)) {
    fail(ARK_INVALID_ARGUMENT, std::string(kernel) + ": " + wrong, "the kernel's attributes", "");
  }
  ThreadPool pool(threads);
  call.operands = bound.data();
  call.attributes = values.data();
  call.parallel = pool.parallel();
  const char* refused = entry->check ? entry->check(call) : nullptr;
  if (refused) fail(ARK_INVALID_ARGUMENT, std::string(kernel) + ": " + refused, "", "");
  Region scratch(entry->scratch ? entry->scratch(call) : 0, "kernel's scratch", false);
  call.scratch = scratch.data();
  entry->run(call);
}

}  // namespace
}  // namespace ark

extern "C" ark_status ark_kernel_run(const char* kernel, const char* isa,
                                     const ark_operand* operands, size_t operand_count,
                                     const char* const* attribute_names, const double* attributes,
                                     size_t attribute_count, int64_t tokens, int64_t past,
                                     int64_t total, int32_t threads, const uint64_t* ancestors,
                                     const int32_t* depths) {
  return ark::guard([&] {
    if (!kernel || !operands || (attribute_count && (!attribute_names || !attributes))) {
      ark::fail(ARK_INVALID_ARGUMENT, "no kernel, operands or attributes", "a pointer", "");
    }
    if (!ancestors != !depths || (ancestors && tokens > 64)) {
      ark::fail(ARK_INVALID_ARGUMENT, "a tree of tokens is not whole",
                "ancestors and depths of at most 64 tokens", "");
    }
    ark::Call call{};
    call.tokens = tokens;
    call.past = past;
    call.total = total;
    call.ancestors = ancestors;
    call.depths = depths;
    ark::run_kernel(kernel, isa, operands, operand_count, attribute_names, attributes,
                    attribute_count, call, threads);
  });
}
