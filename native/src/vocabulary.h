// vocabulary.bin: the bytes of every token.
#pragma once

#include <cstdint>
#include <string_view>

#include "mapped_file.h"

namespace ark {

class Vocabulary {
 public:
  Vocabulary() = default;
  // Raises ARK_INVALID_BUNDLE when counts and offsets do not fit the file.
  explicit Vocabulary(MappedFile file);

  bool present() const { return file_.data() != nullptr; }
  uint32_t count() const { return count_; }
  size_t file_bytes() const { return file_.size(); }
  // Empty for an id that is not in the table: a model's head may be wider than its tokenizer.
  std::string_view bytes(int32_t token) const;

 private:
  uint32_t word(size_t index) const;

  MappedFile file_;
  uint32_t count_ = 0;
  size_t text_ = 0;  // where the bytes begin
};

}  // namespace ark
