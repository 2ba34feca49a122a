// Decoding a token takes no memory: what it needs is laid out when the session begins.
#include <cstdlib>
#include <new>
#include <vector>

#include "check.h"
#include "fixture.h"

namespace {
// Of the calling thread: others check the weights meanwhile, and may allocate.
thread_local int64_t allocations = 0;

void* counted(std::size_t bytes) {
  allocations++;
  return std::malloc(bytes ? bytes : 1);
}
}  // namespace

// Where one of a pair is inlined and the other is not, GCC takes them for a mismatch.
#define NOINLINE __attribute__((noinline))
NOINLINE void* operator new(std::size_t bytes) {
  if (void* memory = counted(bytes)) return memory;
  throw std::bad_alloc();
}
NOINLINE void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return counted(bytes);
}
NOINLINE void operator delete(void* memory) noexcept { std::free(memory); }
NOINLINE void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
NOINLINE void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }

using namespace ark;
using namespace ark::testing;

TEST(a_token_allocates_nothing) {
  for (bool sparse : {false, true}) {
    // One thread does all of the work itself, two are the usual case.
    for (int32_t threads : {1, 2}) {
      Session session(load(real_files(sparse)), tiny_options(kContext, threads));
      std::vector<float> logits(kVocab);
      int64_t before = allocations;
      std::vector<int32_t> prompt(20, 3);
      CHECK(allocations == before + 1);
      session.append(prompt.data(), prompt.size(), false, logits.data());
      before = allocations;
      for (int32_t i = 0; i < 70; i++) {
        int32_t token = i % kVocab;
        session.append(&token, 1, false, logits.data());
        CHECK(allocations == before);
      }
    }
  }
}
