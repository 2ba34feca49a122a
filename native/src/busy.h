// One call that changes a session at a time; a second thread is told so.
#pragma once

#include <atomic>

#include "error.h"

namespace ark {

class Busy {
 public:
  explicit Busy(std::atomic<bool>* flag) : flag_(flag) {
    if (flag_->exchange(true)) {
      fail(ARK_INVALID_ARGUMENT, "the session is in use by another thread", "one call at a time",
           "make a session per thread");
    }
  }
  ~Busy() { flag_->store(false); }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  std::atomic<bool>* flag_;
};

}  // namespace ark
