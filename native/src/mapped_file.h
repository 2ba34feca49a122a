// A whole file mapped for reading.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace ark {

class MappedFile {
 public:
  MappedFile() = default;
  // Raises ARK_NOT_FOUND when there is no such file, ARK_INVALID_BUNDLE when it is not a regular
  // file or cannot be read.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const char* data() const { return data_; }
  size_t size() const { return size_; }
  // Starts reading the file in, with large pages where the system can.
  void prefetch() const;

 private:
  const char* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ark
