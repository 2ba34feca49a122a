// Failures inside the library: thrown as Error, turned into a status at the C boundary.
#pragma once

#include <cstdint>
#include <exception>
#include <string>

#include "arkinfer.h"

namespace ark {

class Error : public std::exception {
 public:
  Error(ark_status status, std::string text) : status_(status), text_(std::move(text)) {}
  ark_status status() const { return status_; }
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  ark_status status_;
  std::string text_;
};

// One line: what was found, what would have been right, what to do. The last two may be empty.
[[noreturn]] void fail(ark_status status, const std::string& found, const std::string& expected,
                       const std::string& remedy);

// For text from outside inside a message: quoted, shortened, control characters replaced.
std::string quote(const std::string& text);

// Sizes from outside: false when the result does not fit in 63 bits or a value is negative.
bool checked_add(int64_t a, int64_t b, int64_t* sum);
bool checked_multiply(int64_t a, int64_t b, int64_t* product);

inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace ark
