#pragma once
// Reading a JSON file strictly: a value together with its place, so that every error names the file, the
// place in it, what was found and what was expected.
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mezzo {

/// A view of one value of a JSON document; the document and the name of its file have to outlive it. A member
/// that is not there is a cursor too: it is missing(), and asking for its value is an error. All functions
/// throw InputError, "FILE: PLACE is FOUND; expected EXPECTED".
class JsonCursor {
 public:
  /// The whole document.
  JsonCursor(const nlohmann::json& document, const std::string& file);
  JsonCursor(nlohmann::json&&, const std::string&) = delete;
  JsonCursor(const nlohmann::json&, std::string&&) = delete;

  bool missing() const { return value_ == nullptr; }
  /// Missing or null: transformers, PEFT and tokenizers write null for what is not set.
  bool is_unset() const;
  bool is_object() const;
  bool is_list() const;
  bool is_text() const;
  const nlohmann::json& value() const;  ///< null where it is missing
  const std::string& file() const { return *file_; }
  const std::string& path() const { return path_; }  ///< "model.merges[3]"; "" for the document
  std::string where() const;                         ///< "FILE: PATH"

  /// A member of an object.
  JsonCursor operator[](std::string_view key) const;
  /// All members of an object, in bytewise order of their names.
  std::vector<std::pair<std::string, JsonCursor>> members() const;
  /// All elements of a list.
  std::vector<JsonCursor> elements() const;

  const std::string& text() const;
  bool boolean() const;
  /// A whole number written without a fraction or an exponent.
  std::int64_t integer(std::int64_t min, std::int64_t max) const;
  std::uint64_t unsigned_integer() const;  ///< of 64 bits
  double number() const;                   ///< finite
  double positive() const;                 ///< finite, > 0

  // The same, or `otherwise` where it is unset.
  std::string text_or(std::string_view otherwise) const;
  bool boolean_or(bool otherwise) const;
  std::int64_t integer_or(std::int64_t min, std::int64_t max, std::int64_t otherwise) const;
  double positive_or(double otherwise) const;

  /// An error for a member of this object that is not among `known`.
  void check_keys(std::initializer_list<std::string_view> known) const;

  [[noreturn]] void fail(std::string_view expected) const;
  /// For what other programs take: "... is FOUND, which is not served; expected SERVED".
  [[noreturn]] void refuse(std::string_view served) const;

 private:
  JsonCursor(const nlohmann::json* value, const std::string* file, std::string path)
      : value_(value), file_(file), path_(std::move(path)) {}
  std::string found() const;

  const nlohmann::json* value_;  ///< nullptr: missing
  const std::string* file_;
  std::string path_;
};

}  // namespace mezzo
