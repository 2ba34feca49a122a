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
  // Gives up the memory of a range; it is read again when it is touched.
  void release(size_t offset, size_t bytes) const;
  // The same file (also when its name now belongs to another one), mapped once more.
  MappedFile again() const;

 private:
  void map();

  const char* data_ = nullptr;
  size_t size_ = 0;
  int file_ = -1;
};

}  // namespace ark
