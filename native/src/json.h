// A small strict JSON reader (RFC 8259). Duplicate keys, deep nesting, invalid UTF-8 and
// numbers outside double are refused; every failure is an Error with ARK_INVALID_BUNDLE.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ark {

class Json {
 public:
  enum class Type { null, boolean, number, string, array, object };

  // what names the text in messages ("plan.json"). Refuses more than limit bytes.
  static Json parse(const std::string& what, const char* text, size_t size,
                    size_t limit = size_t{256} << 20);

  Type type() const { return type_; }
  const std::vector<Json>& items() const { return items_; }       // of an array or object
  const std::vector<std::string>& keys() const { return keys_; }  // of an object
  const std::string& text() const { return text_; }               // of a string
  double real() const { return number_; }                         // of a number
  bool truth() const { return number_ != 0; }                     // of a boolean
  const Json* find(const std::string& key) const;                 // nullptr when absent

 private:
  friend class JsonParser;
  Type type_ = Type::null;
  double number_ = 0;
  std::string text_;
  std::vector<std::string> keys_;  // keys_[i] belongs to items_[i]
  std::vector<Json> items_;
};

// A value together with its place ("plan.json: buffers[3].rows"), so that a reader can say where
// something is wrong. Every accessor raises ARK_INVALID_BUNDLE when the value is not of that type.
class JsonView {
 public:
  JsonView(const Json& value, std::string place) : value_(&value), place_(std::move(place)) {}

  const std::string& place() const { return place_; }
  bool is(Json::Type type) const { return value_->type() == type; }
  bool has(const char* key) const { return value_->find(key) != nullptr; }
  JsonView at(const char* key) const;  // a member that must exist
  JsonView item(size_t index) const;
  JsonView member(size_t index) const;  // an object's member by position
  const std::string& key(size_t index) const { return value_->keys()[index]; }
  size_t array_size() const;
  size_t object_size() const;
  const std::string& string() const;
  double real() const;
  int64_t integer(int64_t low, int64_t high) const;  // inclusive bounds

  [[noreturn]] void refuse(const std::string& found, const std::string& expected) const;

 private:
  const Json* value_;
  std::string place_;
};

}  // namespace ark
