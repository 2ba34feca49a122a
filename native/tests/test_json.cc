#include <cstring>
#include <memory>
#include <string>

#include "check.h"
#include "json.h"
#include "utf8.h"

using ark::Json;
using ark::JsonView;

static Json parse(const std::string& text) { return Json::parse("t", text.data(), text.size()); }

TEST(json_reads_values) {
  Json json =
      parse(" {\"a\": [1, -2.5e3, true, false, null], \"b\\u00e9\\n\": \"\\ud83d\\ude00\"} ");
  JsonView root(json, "t");
  JsonView a = root.at("a");
  CHECK(a.array_size() == 5);
  CHECK(a.item(0).integer(0, 10) == 1);
  CHECK(a.item(1).real() == -2500.0);
  CHECK(a.item(2).is(Json::Type::boolean) && json.items()[0].items()[2].truth());
  CHECK(!json.items()[0].items()[3].truth());
  CHECK(a.item(4).is(Json::Type::null));
  CHECK(root.at("b\xC3\xA9\n").string() == "\xF0\x9F\x98\x80");
  CHECK(parse("0.1").real() == 0.1);
  CHECK(parse("9007199254740991").real() == 9007199254740991.0);
}

TEST(json_refuses_what_is_not_json) {
  const char* bad[] = {"",
                       " ",
                       "{",
                       "[1,]",
                       "{\"a\":1,}",
                       "[1 2]",
                       "01",
                       "1.",
                       ".5",
                       "+1",
                       "-",
                       "1e",
                       "nul",
                       "tru",
                       "'a'",
                       "\"a",
                       "\"\\x\"",
                       "\"\\u12\"",
                       "\"\n\"",
                       "{a:1}",
                       "{\"a\" 1}",
                       "1 2",
                       "\"\\ud800\"",
                       "\"\\udc00\"",
                       "NaN",
                       "Infinity",
                       "1e999",
                       "\"\xFF\"",
                       "\"\xC0\x80\"",
                       "\"\xED\xA0\x80\"",
                       "\"\xE4\xBD\"",
                       "]"};
  for (const char* text : bad) {
    CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("t: byte "), parse(text));
  }
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("duplicate key 'a'"), parse("{\"a\":1,\"b\":2,\"a\":3}"));
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("nesting deeper than 64"), parse(std::string(100000, '[')));
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("4 bytes", "at most 3"), Json::parse("t", "true", 4, 3));
  CHECK(parse(std::string(64, '[') + std::string(64, ']')).items().size() == 1);
}

TEST(json_reads_within_its_bounds) {
  // The text has no terminator: a prefix of every length must be refused or read, never overrun.
  std::string text = "{\"a\": [1.5e-3, \"\\u00e9\xC3\xA9\", true, null]}";
  for (size_t size = 0; size < text.size(); size++) {
    std::unique_ptr<char[]> exact(new char[size]);
    std::memcpy(exact.get(), text.data(), size);
    CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("t: "), Json::parse("t", exact.get(), size));
  }
}

TEST(json_view_names_places) {
  Json json = parse("{\"a\": [{\"n\": 1.5}], \"big\": 1e17}");
  JsonView root(json, "t");
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("t: a[0].n: 1.5", "an integer from 0 to 9"),
              root.at("a").item(0).at("n").integer(0, 9));
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("no \"x\""), root.at("x"));
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("not a string"), root.at("a").string());
  CHECK_ERROR(ARK_INVALID_BUNDLE, PARTS("t: big"), root.at("big").integer(0, INT64_MAX));
}

TEST(utf8_follows_the_standard) {
  auto valid = [](const char* text) { return ark::utf8_valid(text, std::strlen(text)); };
  CHECK(valid(
      "a\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xF0\x90\x80\x80\xF4\x8F\xBF\xBF"));
  for (const char* bad : {"\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE4\xBD", "\xC2"}) {
    CHECK(!valid(bad));
  }
}
