#include "check.h"

#include <cstdio>
#include <cstring>
#include <exception>
#include <vector>

namespace ark::testing {
namespace {

struct Entry {
  const char* name;
  void (*body)();
};
std::vector<Entry>& entries() {
  static std::vector<Entry> list;
  return list;
}

}  // namespace

Registration::Registration(const char* name, void (*body)()) { entries().push_back({name, body}); }

int run_all(const char* filter) {
  int failed = 0;
  int ran = 0;
  for (const Entry& entry : entries()) {
    if (!std::strstr(entry.name, filter)) continue;
    ran++;
    try {
      entry.body();
      std::printf("ok   %s\n", entry.name);
    } catch (const std::exception& error) {
      failed++;
      std::printf("FAIL %s: %s\n", entry.name, error.what());
    }
    std::fflush(stdout);
  }
  std::printf("%d tests, %d failed\n", ran, failed);
  return ran == 0 ? 1 : failed;
}

void report(const char* file, int line, const std::string& what) {
  throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

void expect_error(const char* file, int line, ark_status status,
                  std::initializer_list<const char*> parts, const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    if (error.status() != status) {
      report(file, line, std::string("another status: ") + error.what());
    }
    for (const char* part : parts) {
      if (!std::strstr(error.what(), part)) {
        report(file, line, std::string("no '") + part + "' in: " + error.what());
      }
    }
    if (std::strchr(error.what(), '\n')) report(file, line, "an error of several lines");
    return;
  }
  report(file, line, "no error was raised");
}

}  // namespace ark::testing
