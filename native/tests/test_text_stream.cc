#include <string>
#include <vector>

#include "check.h"
#include "text_stream.h"

using ark::TextStream;

namespace {

struct Result {
  std::vector<std::string> pieces;
  std::string text;
  bool stopped = false;
};

Result feed(const std::vector<std::string>& stops, const std::vector<std::string>& tokens) {
  TextStream stream(stops);
  Result result;
  for (const std::string& token : tokens) {
    std::string piece;
    result.stopped = stream.push(token, &piece);
    result.pieces.push_back(piece);
    result.text += piece;
    if (result.stopped) return result;
  }
  std::string piece;
  result.stopped = stream.flush(&piece);
  result.pieces.push_back(piece);
  result.text += piece;
  return result;
}

}  // namespace

TEST(text_holds_incomplete_characters) {
  Result r = feed({}, {"a\xF0", "\x9F", "\x98",
                       "\x80"
                       "b"});
  CHECK(r.pieces == (std::vector<std::string>{"a", "", "",
                                              "\xF0\x9F\x98\x80"
                                              "b",
                                              ""}));
}

TEST(text_replaces_what_is_not_utf8) {
  CHECK(feed({}, {"\xFF", "a"}).text ==
        "\xEF\xBF\xBD"
        "a");
  CHECK(feed({}, {"\xE4\xBD", "a"}).text ==
        "\xEF\xBF\xBD"
        "a");
  CHECK(feed({}, {"a", "\xE4\xBD"}).text == "a\xEF\xBF\xBD");
  CHECK(feed({}, {"\xC3", "\xC3\xA9"}).text == "\xEF\xBF\xBD\xC3\xA9");
}

TEST(text_stops_across_tokens) {
  Result r = feed({"</s>"}, {"hi", "<", "/", "s", ">", "no"});
  CHECK(r.stopped && r.text == "hi");
  CHECK((r.pieces == std::vector<std::string>{"hi", "", "", "", ""}));
  r = feed({"</s>"}, {"hi <", "/s", "p>"});
  CHECK(!r.stopped && r.text == "hi </sp>");
  r = feed({"END"}, {"xEN", "EN", "Dy"});
  CHECK(r.stopped && r.text == "xEN");
  r = feed({"aab"}, {"a", "a", "a", "b"});
  CHECK(r.stopped && r.text == "a");
  r = feed({"stop"}, {"a sto"});
  CHECK(!r.stopped && r.text == "a sto");
}

TEST(text_stops_at_the_earliest) {
  Result r = feed({"cd", "b"}, {"abcd"});
  CHECK(r.stopped && r.text == "a");
  r = feed({"longer than all", "x"}, {"long", "er x"});
  CHECK(r.stopped && r.text == "longer ");
}

TEST(text_stops_at_split_characters) {
  Result r = feed({"\xE4\xBD\xA0"}, {"a\xE4", "\xBD", "\xA0z"});
  CHECK(r.stopped && r.text == "a");
}

// However a text is cut in tokens, what is emitted is the same and never holds the stop string.
TEST(text_does_not_depend_on_the_cuts) {
  const std::string text = "ab</</s></s>\xE4\xBD\xA0<\xF0\x9F\x98\x80/s>";
  for (uint32_t cuts = 0; cuts < 1u << 12; cuts++) {
    std::vector<std::string> tokens(1);
    for (size_t i = 0; i < text.size(); i++) {
      tokens.back() += text[i];
      if (cuts >> (i % 12) & 1) tokens.emplace_back();
    }
    Result r = feed({"</s>"}, tokens);
    CHECK(r.stopped && r.text == "ab</");
    CHECK(feed({"never"}, tokens).text == text);
  }
}

TEST(text_refuses_bad_stop_strings) {
  CHECK_ERROR(ARK_INVALID_ARGUMENT, {"stop string ''"}, TextStream({""}));
  CHECK_ERROR(ARK_INVALID_ARGUMENT, {"stop string"}, TextStream({"\xFF"}));
}
