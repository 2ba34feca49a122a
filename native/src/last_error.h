// The boundary of the C ABI: exceptions become a status and this thread's last error text.
#pragma once

#include <exception>
#include <new>

#include "error.h"

namespace ark {

// Never throws and never allocates; the text is cut to a fixed length.
void set_last_error(const char* text) noexcept;

template <typename Function>
ark_status guard(Function&& function) noexcept {
  try {
    function();
    return ARK_OK;
  } catch (const Error& error) {
    set_last_error(error.what());
    return error.status();
  } catch (const std::bad_alloc&) {
    set_last_error("not enough memory; expected more free memory; choose a smaller context");
    return ARK_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    set_last_error(error.what());
    return ARK_INTERNAL;
  } catch (...) {
    set_last_error("an unknown failure");
    return ARK_INTERNAL;
  }
}

}  // namespace ark
