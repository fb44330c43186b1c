// Templates: texts with {fields}.
#include <algorithm>

#include "mezzo/core/config.h"
#include "mezzo/core/error.h"
#include "mezzo/core/yaml.h"

namespace mezzo {

namespace {

std::vector<TemplatePart> parts_of(std::string_view text, const std::string& context) {
  std::vector<TemplatePart> parts;
  const auto add_literal = [&](char c) {
    if (parts.empty() || parts.back().is_field) parts.push_back({false, ""});
    parts.back().text += c;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c != '{' && c != '}') {
      add_literal(c);
    } else if (i + 1 < text.size() && text[i + 1] == c) {
      add_literal(c);
      ++i;
    } else if (c == '}') {
      throw UsageError("{}: has a }} at byte {} that closes no {{; write }}}} for a literal one", context, i);
    } else {
      const std::size_t end = text.find_first_of("{}", i + 1);
      if (end == text.npos || text[end] == '{') {
        throw UsageError("{}: has a {{ at byte {} that is not closed; write {{{{ for a literal one", context,
                         i);
      }
      const std::string_view name = text.substr(i + 1, end - i - 1);
      if (name.empty())
        throw UsageError("{}: has {{}} at byte {}; expected {{the name of a field}}", context, i);
      if (name.front() == ' ' || name.back() == ' ') {
        throw UsageError("{}: has a field '{}' with spaces around its name; expected {{name}}", context,
                         yaml::printable(name));
      }
      parts.push_back({true, std::string(name)});
      i = end;
    }
  }
  return parts;
}

}  // namespace

std::vector<TemplatePart> parse_template(std::string_view text, const std::string& context) {
  std::vector<TemplatePart> parts = parts_of(text, context);
  if (std::ranges::none_of(parts, &TemplatePart::is_field)) {
    throw UsageError("{}: expected a text with at least one {{field}}, found \"{}\"", context,
                     yaml::printable(text));
  }
  return parts;
}

std::string field_in(std::string_view text) {
  for (std::size_t open = text.find('{'); open != text.npos; open = text.find('{', open + 1)) {
    const std::size_t end = text.find_first_of("{}", open + 1);
    if (end != text.npos && text[end] == '}' && end > open + 1) {
      return std::string(text.substr(open, end - open + 1));
    }
  }
  return "";
}

std::vector<TemplatePart> parse_optional_template(std::string_view text, const std::string& context) {
  if (field_in(text).empty()) return {{false, std::string(text)}};
  return parts_of(text, context);
}

}  // namespace mezzo
