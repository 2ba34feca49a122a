// Token bytes to text: complete UTF-8 only, and nothing that may still become a stop string.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ark {

class TextStream {
 public:
  // Raises ARK_INVALID_ARGUMENT for an empty stop string or one that is not UTF-8.
  explicit TextStream(std::vector<std::string> stop_strings);

  // Takes a token's bytes and adds to *text what is certain now. True: a stop string is complete;
  // the text in front of it has been added and nothing more will come.
  bool push(std::string_view bytes, std::string* text);
  // The end of the answer: adds what was held back. True: a stop string appeared in it.
  bool flush(std::string* text);

 private:
  void decode(bool end);
  bool release(bool end, std::string* text);

  std::vector<std::string> stops_;
  std::string bytes_;  // an incomplete character
  std::string held_;   // complete characters that may begin a stop string
};

}  // namespace ark
