#include "jinja_call.h"

#include <fmt/format.h>

#include <algorithm>

namespace mezzo::jinja {

void CallValues::check(std::string_view callee, std::initializer_list<std::string_view> names) const {
  if (positional.size() > names.size())
    throw Problem(
        fmt::format("{}: {} arguments, expected {} at most", callee, positional.size(), names.size()));
  for (const auto& [name, value] : named) {
    const auto place = std::ranges::find(names, name) - names.begin();
    if (place == static_cast<std::ptrdiff_t>(names.size()))
      throw Problem(fmt::format("{}: the argument {} is not served", callee, name));
    if (place < static_cast<std::ptrdiff_t>(positional.size()) ||
        std::ranges::count(named, name, [](const auto& entry) { return entry.first; }) > 1)
      throw Problem(fmt::format("{}: the argument {} is given twice", callee, name));
  }
}

const Value* CallValues::find(std::size_t place, std::string_view name) const {
  if (place < positional.size()) return &positional[place];
  for (const auto& [given, value] : named) {
    if (given == name) return &value;
  }
  return nullptr;
}

const std::string& text_argument(std::string_view callee, const Value& value) {
  if (!value.is_text()) throw Problem(fmt::format("{}: found {}, expected a text", callee, type_name(value)));
  return value.text();
}

std::int64_t whole_argument(std::string_view callee, const Value& value) {
  if (!value.is_whole())
    throw Problem(fmt::format("{}: found {}, expected a whole number", callee, type_name(value)));
  return value.whole();
}

const Value& needed(std::string_view callee, const CallValues& arguments, std::size_t place,
                    std::string_view name) {
  const Value* value = arguments.find(place, name);
  if (value == nullptr) throw Problem(fmt::format("{}: the argument {} is missing", callee, name));
  return *value;
}

}  // namespace mezzo::jinja
