// Zeroed memory straight from the system: only the pages that are touched become resident.
#pragma once

#include <cstddef>

namespace ark {

class Region {
 public:
  Region() = default;
  // what names the memory in the error (ARK_OUT_OF_MEMORY). Aligned to a page.
  Region(size_t bytes, const char* what, bool huge_pages);
  ~Region();
  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  char* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  char* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ark
