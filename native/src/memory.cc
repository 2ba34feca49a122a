#include "memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "error.h"

#if defined(__SANITIZE_ADDRESS__)
#define ARK_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARK_ADDRESS_SANITIZER 1
#endif
#endif

namespace ark {

Region::Region(size_t bytes, const char* what, bool huge_pages) : size_(bytes) {
  if (bytes == 0) return;
#if defined(ARK_ADDRESS_SANITIZER)
  // The sanitizer watches the edges of heap blocks, not of mappings.
  (void)huge_pages;
  void* memory = nullptr;
  bool refused = bytes > size_t{1} << 34 || posix_memalign(&memory, 4096, bytes) != 0;
  if (!refused) std::memset(memory, 0, bytes);
#else
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  bool refused = memory == MAP_FAILED;
#if defined(MADV_HUGEPAGE)
  if (!refused && huge_pages) madvise(memory, bytes, MADV_HUGEPAGE);
#else
  (void)huge_pages;
#endif
#endif
  if (refused) {
    size_ = 0;
    fail(ARK_OUT_OF_MEMORY,
         "the system refused " + std::to_string(bytes) + " bytes for the " + what,
         "that much free memory", "choose a smaller context");
  }
  data_ = static_cast<char*>(memory);
}

Region::~Region() {
#if defined(ARK_ADDRESS_SANITIZER)
  std::free(data_);
#else
  if (data_) munmap(data_, size_);
#endif
}

Region::Region(Region&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Region& Region::operator=(Region&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace ark
