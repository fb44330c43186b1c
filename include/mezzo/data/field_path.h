#pragma once
// Fields of a record by the names that configs use for them.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace mezzo {

/// A field of a record: its `name`, or a path `a.b`, `a[0].b`, `a.0.b` to one within others. A field that has
/// the whole text as its name goes first, so that names may hold dots. Behind it may stand `:text`: then a
/// number, true, false and null are the texts that JSON has for them, where else a string is expected.
class FieldPath {
 public:
  explicit FieldPath(std::string written);

  const std::string& name() const { return name_; }  ///< without `:text`
  bool as_text() const { return as_text_; }
  bool operator==(const FieldPath& other) const { return name_ == other.name_ && as_text_ == other.as_text_; }

  /// Its value in a record, or nullptr where the record has none.
  const nlohmann::json* find(const nlohmann::json& record) const;
  /// The same, or InputError naming `where`.
  const nlohmann::json& in(const nlohmann::json& record, const std::string& where) const;
  /// The text of its value. InputError naming `where` for a value that is none.
  std::string text_in(const nlohmann::json& record, const std::string& where) const;
  /// The texts of its value, a list of one at least, or one text.
  std::vector<std::string> texts_in(const nlohmann::json& record, const std::string& where) const;

 private:
  std::string text_of(const nlohmann::json& value, const std::string& where) const;

  std::string name_;
  bool as_text_;
  std::vector<std::string> steps_;  ///< a name or an index each; empty: no path
};

}  // namespace mezzo
