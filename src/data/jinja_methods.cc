#include "jinja_library.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <span>

#include "jinja_text.h"

namespace mezzo::jinja {
namespace {

constexpr std::string_view text_methods[] = {
    "strip", "lstrip", "rstrip",       "split",        "splitlines", "startswith", "endswith",
    "upper", "lower",  "title",        "capitalize",   "replace",    "find",       "rfind",
    "count", "join",   "removeprefix", "removesuffix", "isdigit",    "isspace"};
constexpr std::string_view dict_methods[] = {"items", "keys", "values", "get"};
/// What Python's texts, dicts and lists have besides: a template that uses it is refused by its name.
constexpr std::string_view other_methods[] = {
    "append",      "casefold", "center",   "clear",      "copy",         "decode",     "encode",
    "expandtabs",  "extend",   "format",   "format_map", "fromkeys",     "index",      "insert",
    "isalnum",     "isalpha",  "isascii",  "isdecimal",  "isidentifier", "islower",    "isnumeric",
    "isprintable", "istitle",  "isupper",  "ljust",      "maketrans",    "partition",  "pop",
    "popitem",     "remove",   "reverse",  "rindex",     "rjust",        "rpartition", "rsplit",
    "setdefault",  "sort",     "swapcase", "translate",  "update",       "zfill"};

bool is_among(std::span<const std::string_view> names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

Value call_text_method(const std::string& text, const std::string& name, const CallValues& arguments,
                       Budget& budget) {
  budget.charge_text(text.size());
  if (!arguments.named.empty() && name != "split" && name != "splitlines")
    throw Problem(fmt::format("{}: arguments have no names", name));
  const auto one = [&](const char* parameter) -> const std::string& {
    return text_argument(name, needed(name, arguments, 0, parameter));
  };
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    arguments.check(name, {"chars"});
    const Value* set = arguments.find(0, "chars");
    const bool blanks = set == nullptr || set->is<None>();
    return std::string(
        strip(text, blanks ? nullptr : &text_argument(name, *set), name != "rstrip", name != "lstrip"));
  }
  if (name == "split") {
    arguments.check(name, {"sep", "maxsplit"});
    const Value* separator = arguments.find(0, "sep");
    const Value* limit = arguments.find(1, "maxsplit");
    const bool blanks = separator == nullptr || separator->is<None>();
    return split_text(text, blanks ? nullptr : &text_argument(name, *separator),
                      limit == nullptr ? -1 : whole_argument(name, *limit), budget);
  }
  if (name == "splitlines") {
    arguments.check(name, {"keepends"});
    const Value* keep = arguments.find(0, "keepends");
    return split_lines(text, keep != nullptr && is_true(*keep), budget);
  }
  if (name == "startswith" || name == "endswith") {
    arguments.check(name, {"affix"});
    const auto fits = [&](const Value& affix) {
      const std::string& piece = text_argument(name, affix);
      return name == "startswith" ? text.starts_with(piece) : text.ends_with(piece);
    };
    const Value& affix = needed(name, arguments, 0, "affix");
    if (const Sequence* list = affix.sequence(); list != nullptr && list->kind == Sequence::Kind::tuple)
      return std::ranges::any_of(list->items, fits);
    return fits(affix);
  }
  if (name == "replace") {
    arguments.check(name, {"old", "new", "count"});
    const Value* count = arguments.find(2, "count");
    return replace_in(text, one("old"), text_argument(name, needed(name, arguments, 1, "new")),
                      count == nullptr ? -1 : whole_argument(name, *count), budget);
  }
  if (name == "find" || name == "rfind" || name == "count") {
    arguments.check(name, {"sub"});
    const std::string& piece = one("sub");
    if (name == "count") {
      if (piece.empty()) return static_cast<std::int64_t>(length_of(Value(text)) + 1);
      std::int64_t count = 0;
      for (std::size_t at = text.find(piece); at != std::string::npos;
           at = text.find(piece, at + piece.size()))
        ++count;
      return count;
    }
    const std::size_t found = name == "find" ? text.find(piece) : text.rfind(piece);
    if (found == std::string::npos) return std::int64_t{-1};
    return static_cast<std::int64_t>(characters_of(std::string_view(text).substr(0, found)).size());
  }
  if (name == "join") {
    arguments.check(name, {"iterable"});
    return join_texts(name, text, elements_of(needed(name, arguments, 0, "iterable"), budget), false, budget);
  }
  if (name == "removeprefix" || name == "removesuffix") {
    arguments.check(name, {"affix"});
    const std::string& piece = one("affix");
    if (name == "removeprefix") return text.starts_with(piece) ? text.substr(piece.size()) : text;
    return text.ends_with(piece) ? text.substr(0, text.size() - piece.size()) : text;
  }
  arguments.check(name, {});
  if (name == "isdigit" || name == "isspace") {
    if (name == "isspace") return !text.empty() && strip(text, nullptr, true, false).empty();
    if (std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) >= 0x80; }))
      not_served("isdigit of a text beyond ASCII");
    return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
  }
  return change_case(name, text,
                     name == "upper"   ? Case::upper
                     : name == "lower" ? Case::lower
                     : name == "title" ? Case::title
                                       : Case::capital);
}

Value call_dict_method(const Dict& dict, const std::string& name, const CallValues& arguments,
                       Budget& budget) {
  budget.charge(dict.entries.size());
  if (!arguments.named.empty()) throw Problem(fmt::format("{}: arguments have no names", name));
  if (name == "get") {
    arguments.check(name, {"key", "default"});
    if (const Value* found = dict.find(needed(name, arguments, 0, "key"))) return *found;
    const Value* otherwise = arguments.find(1, "default");
    return otherwise == nullptr ? Value() : *otherwise;
  }
  arguments.check(name, {});
  Sequence view{.kind = Sequence::Kind::view, .items = {}};
  for (const auto& [key, value] : dict.entries) {
    if (name == "keys") view.items.push_back(key);
    else if (name == "values") view.items.push_back(value);
    else view.items.emplace_back(Sequence{.kind = Sequence::Kind::tuple, .items = {key, value}});
  }
  return view;
}

}  // namespace

Value method_of(const Value& object, const std::string& name) {
  const bool is_known = (object.is_text() && is_among(text_methods, name)) ||
                        (object.dict() != nullptr && is_among(dict_methods, name));
  if (is_known) return Method{std::make_shared<const Value>(object), name};
  const bool has_others = object.is_text() || object.dict() != nullptr || object.sequence() != nullptr;
  const bool is_listed = is_among(other_methods, name) || is_among(text_methods, name);
  // A key of such a name is taken for the method by Jinja too.
  if (has_others && is_listed && !(object.dict() != nullptr && is_among(text_methods, name)))
    return Method{std::make_shared<const Value>(object), name};
  return Undefined{name};
}

Value call_method(const Method& method, const CallValues& arguments, Budget& budget) {
  const Value& self = *method.self;
  if (self.is_text() && is_among(text_methods, method.name))
    return call_text_method(self.text(), method.name, arguments, budget);
  if (self.dict() != nullptr && is_among(dict_methods, method.name))
    return call_dict_method(*self.dict(), method.name, arguments, budget);
  not_served(fmt::format("the method {} of {}", method.name, type_name(self)));
}

}  // namespace mezzo::jinja
