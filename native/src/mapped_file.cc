#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "error.h"

namespace ark {

MappedFile::MappedFile(const std::string& path) {
  // Non-blocking, so that a pipe put in the file's place cannot hang the load.
  int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) {
    int error = errno;
    fail(error == ENOENT || error == ENOTDIR ? ARK_NOT_FOUND : ARK_INVALID_BUNDLE,
         quote(path) + ": " + std::strerror(error), "a readable file", "");
  }
  struct stat status;
  if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(file);
    fail(ARK_INVALID_BUNDLE, quote(path) + " is not a regular file", "a regular file", "");
  }
  size_ = static_cast<size_t>(status.st_size);
  if (size_) {
    void* memory = mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0);
    int error = errno;
    close(file);
    if (memory == MAP_FAILED) {
      fail(ARK_OUT_OF_MEMORY, "cannot map " + quote(path) + ": " + std::strerror(error),
           "address space for " + std::to_string(size_) + " bytes", "");
    }
    data_ = static_cast<const char*>(memory);
  } else {
    close(file);
  }
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<char*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::prefetch() const {
  if (!data_) return;
  madvise(const_cast<char*>(data_), size_, MADV_WILLNEED);
#if defined(MADV_HUGEPAGE)
  madvise(const_cast<char*>(data_), size_, MADV_HUGEPAGE);
#endif
}

}  // namespace ark
