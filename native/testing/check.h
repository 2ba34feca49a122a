// A test framework in a page: TEST registers, CHECK reports file and line and ends the test.
#pragma once

#include <functional>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "error.h"

namespace ark::testing {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Registration {
  Registration(const char* name, void (*body)());
};
// Runs every test whose name holds filter; gives how many failed.
int run_all(const char* filter);

[[noreturn]] void report(const char* file, int line, const std::string& what);
// Expects an Error of that status whose text holds every part.
void expect_error(const char* file, int line, ark_status status,
                  std::initializer_list<const char*> parts, const std::function<void()>& body);

}  // namespace ark::testing

#define TEST(name)                                                                 \
  static void test_##name();                                                       \
  static const ark::testing::Registration registration_##name(#name, test_##name); \
  static void test_##name()
#define CHECK(condition)                                                    \
  do {                                                                      \
    if (!(condition)) ark::testing::report(__FILE__, __LINE__, #condition); \
  } while (0)
// The texts that an error must hold: PARTS("found", "expected").
#define PARTS(...) {__VA_ARGS__}
#define CHECK_ERROR(status, parts, ...) \
  ark::testing::expect_error(__FILE__, __LINE__, status, parts, [&] { __VA_ARGS__; })
