#include "mezzo/io/json_cursor.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;

/// "a.b", or a["b c"] for a key that would not read as one word.
std::string member_path(const std::string& path, std::string_view key) {
  const bool is_word = !key.empty() && std::ranges::all_of(key, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
  if (!is_word) return fmt::format("{}[{}]", path, quote(key));
  return path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
}

}  // namespace

JsonCursor::JsonCursor(const Json& document, const std::string& file) : value_(&document), file_(&file) {}

bool JsonCursor::is_unset() const { return missing() || value_->is_null(); }
bool JsonCursor::is_object() const { return !missing() && value_->is_object(); }
bool JsonCursor::is_list() const { return !missing() && value_->is_array(); }
bool JsonCursor::is_text() const { return !missing() && value_->is_string(); }

const Json& JsonCursor::value() const {
  static const Json null;
  return missing() ? null : *value_;
}

std::string JsonCursor::where() const {
  return path_.empty() ? *file_ : fmt::format("{}: {}", *file_, path_);
}

JsonCursor JsonCursor::operator[](std::string_view key) const {
  if (!is_object()) fail("an object");
  const auto member = value_->find(key);
  return {member == value_->end() ? nullptr : &*member, file_, member_path(path_, key)};
}

std::vector<std::pair<std::string, JsonCursor>> JsonCursor::members() const {
  if (!is_object()) fail("an object");
  std::vector<std::pair<std::string, JsonCursor>> members;
  for (const auto& [key, member] : value_->items())
    members.emplace_back(key, JsonCursor(&member, file_, member_path(path_, key)));
  return members;
}

std::vector<JsonCursor> JsonCursor::elements() const {
  if (!is_list()) fail("a list");
  std::vector<JsonCursor> elements;
  elements.reserve(value_->size());
  for (const Json& element : *value_)
    elements.push_back(JsonCursor(&element, file_, fmt::format("{}[{}]", path_, elements.size())));
  return elements;
}

const std::string& JsonCursor::text() const {
  if (!is_text()) fail("a text");
  return value_->get_ref<const std::string&>();
}

bool JsonCursor::boolean() const {
  if (!value().is_boolean()) fail("true or false");
  return value_->get<bool>();
}

std::int64_t JsonCursor::integer(std::int64_t min, std::int64_t max) const {
  // Unsigned numbers beyond 63 bits would wrap in get<std::int64_t>().
  const Json& json = value();
  const bool fits = json.is_number_unsigned()
                        ? max >= 0 && json.get<std::uint64_t>() <= static_cast<std::uint64_t>(max)
                        : json.is_number_integer() && json.get<std::int64_t>() <= max;
  if (!fits || json.get<std::int64_t>() < min) fail(fmt::format("a whole number from {} to {}", min, max));
  return json.get<std::int64_t>();
}

std::uint64_t JsonCursor::unsigned_integer() const {
  if (!value().is_number_unsigned()) fail("a whole number from 0 to 18446744073709551615");
  return value_->get<std::uint64_t>();
}

double JsonCursor::number() const {
  const double number = value().is_number() ? value_->get<double>() : std::nan("");
  if (!std::isfinite(number)) fail("a finite number");
  return number;
}

double JsonCursor::positive() const {
  const double number = value().is_number() ? value_->get<double>() : 0.0;
  if (!(number > 0.0) || !std::isfinite(number)) fail("a finite number above 0");
  return number;
}

std::string JsonCursor::text_or(std::string_view otherwise) const {
  return is_unset() ? std::string(otherwise) : text();
}
bool JsonCursor::boolean_or(bool otherwise) const { return is_unset() ? otherwise : boolean(); }
std::int64_t JsonCursor::integer_or(std::int64_t min, std::int64_t max, std::int64_t otherwise) const {
  return is_unset() ? otherwise : integer(min, max);
}
double JsonCursor::positive_or(double otherwise) const { return is_unset() ? otherwise : positive(); }

void JsonCursor::check_keys(std::initializer_list<std::string_view> known) const {
  for (const auto& [key, member] : members()) {
    if (std::ranges::find(known, key) != known.end()) continue;
    const std::string near = nearest(key, known);
    throw InputError("{}: the key {} is not known here; {}", where(), quote(key),
                     near.empty() ? fmt::format("expected {}", fmt::join(known, ", "))
                                  : fmt::format("the nearest known one is {}", near));
  }
}

void JsonCursor::fail(std::string_view expected) const {
  throw InputError("{} is {}; expected {}", where(), found(), expected);
}

void JsonCursor::refuse(std::string_view served) const {
  throw InputError("{} is {}, which is not served; expected {}", where(), found(), served);
}

std::string JsonCursor::found() const {
  if (missing()) return "missing";
  if (is_text()) return quote(value_->get_ref<const std::string&>());
  if (is_list()) return fmt::format("a list of {}", value_->size());
  if (!is_object()) return value_->dump();
  const auto type = value_->find("type");  // what components of many formats name themselves by
  if (type == value_->end() || !type->is_string()) return "an object";
  return "of the type " + quote(type->get_ref<const std::string&>());
}

}  // namespace mezzo
