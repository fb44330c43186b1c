#include "jinja_library.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <span>

#include "mezzo/core/utf8.h"

namespace mezzo::jinja {
namespace {

// ---- arguments --------------------------------------------------------------------------------------------
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

// ---- texts ------------------------------------------------------------------------------------------------
enum class Case { upper, lower, title, capital };

/// Letters beyond ASCII change in ways that a table of Unicode's would have to say.
std::string change_case(std::string_view callee, std::string text, Case to) {
  bool in_word = false;
  for (char& c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) not_served(fmt::format("{} of a text beyond ASCII", callee));
    const bool is_upper = c >= 'A' && c <= 'Z';
    const bool is_lower = c >= 'a' && c <= 'z';
    const bool up = to == Case::upper || ((to == Case::title || to == Case::capital) && !in_word);
    if (up && is_lower) c = static_cast<char>(c - 'a' + 'A');
    if (!up && is_upper) c = static_cast<char>(c - 'A' + 'a');
    in_word = to == Case::capital || is_upper || is_lower;
  }
  return text;
}

std::string replace_in(const std::string& text, const std::string& from, const std::string& to,
                       std::int64_t count, Budget& budget) {
  std::string out;
  const auto add = [&](std::string_view piece) {
    budget.charge_text(out.size() + piece.size());
    out += piece;
  };
  if (from.empty()) {  // between all characters
    for (const std::string_view character : characters_of(text)) {
      if (count-- != 0) add(to);
      else count = 0;
      add(character);
    }
    if (count != 0) add(to);
    return out;
  }
  std::size_t begin = 0;
  for (std::size_t found; count != 0 && (found = text.find(from, begin)) != std::string::npos; --count) {
    out.append(text, begin, found - begin);
    add(to);
    begin = found + from.size();
    budget.charge(1);
  }
  add(std::string_view(text).substr(begin));
  return out;
}

Sequence split_text(std::string_view text, const std::string* separator, std::int64_t limit, Budget& budget) {
  Sequence pieces;
  const auto add = [&](std::string_view piece) {
    budget.charge_text(piece.size());
    pieces.items.emplace_back(std::string(piece));
  };
  if (separator != nullptr) {
    if (separator->empty()) throw Problem("split: the separator is empty");
    for (std::size_t found; limit != 0 && (found = text.find(*separator)) != std::string_view::npos;
         --limit) {
      add(text.substr(0, found));
      text.remove_prefix(found + separator->size());
    }
    add(text);
    return pieces;
  }
  text = strip(text, nullptr, true, false);
  while (!text.empty()) {
    std::size_t end = 0;
    std::size_t size = 0;
    while (end < text.size() && !starts_with_space(text.substr(end), size)) end += size;
    if (limit-- == 0) {
      add(text);
      break;
    }
    add(text.substr(0, end));
    text = strip(text.substr(end), nullptr, true, false);
  }
  return pieces;
}

Sequence split_lines(std::string_view text, bool keep_ends, Budget& budget) {
  Sequence lines;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint point = first_code_point(text.substr(i));
    const char32_t c = point.value;
    const bool ends =
        (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    std::size_t next = i + point.size;
    if (ends) {
      if (c == 0x0D && text.substr(next).starts_with('\n')) ++next;
      budget.charge_text(next - begin);
      lines.items.emplace_back(std::string(text.substr(begin, (keep_ends ? next : i) - begin)));
      begin = next;
    }
    i = next;
  }
  if (begin < text.size()) lines.items.emplace_back(std::string(text.substr(begin)));
  return lines;
}

std::string join_texts(std::string_view callee, const std::string& separator, const std::vector<Value>& items,
                       bool convert, Budget& budget) {
  std::string out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::string piece = convert ? text_of(items[i], budget) : text_argument(callee, items[i]);
    budget.charge_text(out.size() + separator.size() + piece.size());
    if (i > 0) out += separator;
    out += piece;
  }
  return out;
}

// ---- filters ----------------------------------------------------------------------------------------------
using Arguments = CallValues;
using FilterFunction = Value (*)(const Value&, const CallValues&, Budget&);

/// An attribute as map(), selectattr() and join() name it: "a.b", or a whole number.
Value attribute_path(const Value& object, const Value& path, Budget& budget) {
  if (path.is_whole()) return element_of(object, path, budget);
  Value value = object;
  std::string_view rest = text_argument("attribute", path);
  for (;;) {
    const std::size_t dot = rest.find('.');
    const std::string name(rest.substr(0, dot));
    std::int64_t index = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool is_index = error == std::errc() && end == name.data() + name.size();
    value = element_of(value, is_index ? Value(index) : Value(name), budget);
    if (dot == std::string_view::npos) return value;
    rest.remove_prefix(dot + 1);
  }
}

Value filter_trim(const Value& object, const CallValues& arguments, Budget& budget) {
  arguments.check("trim", {"chars"});
  const Value* set = arguments.find(0, "chars");
  const bool blanks = set == nullptr || set->is<None>();
  return std::string(
      strip(text_of(object, budget), blanks ? nullptr : &text_argument("trim", *set), true, true));
}

Value filter_length(const Value& object, const CallValues& arguments, Budget& budget) {
  arguments.check("length", {});
  if (object.is_text()) budget.charge_text(object.text().size());
  return static_cast<std::int64_t>(length_of(object));
}

Value filter_join(const Value& object, const CallValues& arguments, Budget& budget) {
  arguments.check("join", {"d", "attribute"});
  const Value* separator = arguments.find(0, "d");
  std::vector<Value> items = elements_of(object, budget);
  if (const Value* attribute = arguments.find(1, "attribute");
      attribute != nullptr && !attribute->is<None>()) {
    for (Value& item : items) item = attribute_path(item, *attribute, budget);
  }
  return join_texts("join", separator == nullptr ? "" : text_of(*separator, budget), items, true, budget);
}

Value filter_tojson(const Value& object, const CallValues& arguments, Budget& budget) {
  arguments.check("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  if (const Value* flag = arguments.find(0, "ensure_ascii")) style.ensure_ascii = is_true(*flag);
  if (const Value* indent = arguments.find(1, "indent"); indent != nullptr && !indent->is<None>()) {
    style.indent =
        static_cast<int>(std::clamp<std::int64_t>(whole_argument("tojson: indent", *indent), 0, 100));
    style.item_separator = ",";
  }
  if (const Value* separators = arguments.find(2, "separators");
      separators != nullptr && !separators->is<None>()) {
    const std::vector<Value> pair = elements_of(*separators, budget);
    if (pair.size() != 2) throw Problem("tojson: separators are not two texts");
    style.item_separator = text_argument("tojson: separators", pair[0]);
    style.key_separator = text_argument("tojson: separators", pair[1]);
  }
  if (const Value* flag = arguments.find(3, "sort_keys")) style.sort_keys = is_true(*flag);
  return json_of(object, style, budget);
}

Value filter_default(const Value& object, const CallValues& arguments, Budget&) {
  arguments.check("default", {"default_value", "boolean"});
  const Value* otherwise = arguments.find(0, "default_value");
  const Value* boolean = arguments.find(1, "boolean");
  const bool keep = !object.is_undefined() && (boolean == nullptr || !is_true(*boolean) || is_true(object));
  return keep ? object : otherwise == nullptr ? Value("") : *otherwise;
}

Value filter_first(const Value& object, const CallValues& arguments, Budget& budget) {
  arguments.check("first", {});
  if (const Sequence* list = object.sequence(); list != nullptr && list->kind == Sequence::Kind::generator) {
    if (list->next == list->items.size()) return Undefined{"the first element"};
    return list->items[list->next++];
  }
  const std::vector<Value> elements = elements_of(object, budget);
  return elements.empty() ? Value(Undefined{"the first element"}) : elements.front();
}

Value filter_last(const Value& object, const CallValues& arguments, Budget& budget) {
  arguments.check("last", {});
  if (const Sequence* list = object.sequence(); list != nullptr && list->kind == Sequence::Kind::generator)
    throw Problem("last: a generator has no last element");
  const std::vector<Value> elements = elements_of(object, budget);
  return elements.empty() ? Value(Undefined{"the last element"}) : elements.back();
}

template <Case to>
Value filter_case(const Value& object, const CallValues& arguments, Budget& budget) {
  constexpr const char* names[] = {"upper", "lower", "title", "capitalize"};
  const char* const name = names[static_cast<int>(to)];
  arguments.check(name, {});
  const std::string text = text_of(object, budget);
  if (to != Case::title) return change_case(name, text, to);
  // Unlike str.title(), the filter knows of words by blanks and - ( { [ < alone.
  std::string out = change_case(name, text, Case::lower);
  bool starts = true;
  for (char& c : out) {
    if (starts && c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    std::size_t size = 0;
    starts = std::string_view("-({[<").find(c) != std::string_view::npos || starts_with_space({&c, 1}, size);
  }
  return out;
}

Value filter_replace(const Value& object, const CallValues& arguments, Budget& budget) {
  arguments.check("replace", {"old", "new", "count"});
  const Value* count = arguments.find(2, "count");
  return replace_in(text_of(object, budget), text_of(needed("replace", arguments, 0, "old"), budget),
                    text_of(needed("replace", arguments, 1, "new"), budget),
                    count == nullptr || count->is<None>() ? -1 : whole_argument("replace", *count), budget);
}

Value filter_list(const Value& object, const CallValues& arguments, Budget& budget) {
  arguments.check("list", {});
  return Sequence{.kind = Sequence::Kind::list, .items = elements_of(object, budget)};
}

Value generator(std::vector<Value> items) {
  return Sequence{.kind = Sequence::Kind::generator, .items = std::move(items)};
}

/// The arguments from a place on: those of the filter or test that the first ones name.
CallValues behind(const CallValues& arguments, std::size_t place) {
  CallValues rest;
  for (std::size_t i = place; i < arguments.positional.size(); ++i)
    rest.positional.push_back(arguments.positional[i]);
  rest.named = arguments.named;
  return rest;
}

bool is_known(const std::vector<std::string_view>& names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

Value filter_map(const Value& object, const CallValues& arguments, Budget& budget) {
  std::vector<Value> items = elements_of(object, budget);
  if (arguments.positional.empty()) {
    arguments.check("map", {"", "attribute", "default"});
    const Value& attribute = needed("map", arguments, 1, "attribute");
    const Value* otherwise = arguments.find(2, "default");
    for (Value& item : items) {
      item = attribute_path(item, attribute, budget);
      if (item.is_undefined() && otherwise != nullptr) item = *otherwise;
    }
  } else {
    const std::string& name = text_argument("map", arguments.positional[0]);
    if (!is_known(library_vocabulary().filters, name)) not_served("the filter " + name);
    const CallValues rest = behind(arguments, 1);
    for (Value& item : items) {
      budget.charge(1);
      item = apply_filter(name, item, rest, budget);
    }
  }
  return generator(std::move(items));
}

template <bool with_attribute, bool selects>
Value filter_select(const Value& object, const CallValues& arguments, Budget& budget) {
  std::size_t place = 0;
  const Value* attribute = nullptr;
  if (with_attribute) attribute = &needed("selectattr", arguments, place++, "attribute");
  std::string test;
  if (arguments.positional.size() > place) {
    test = text_argument("select", arguments.positional[place++]);
    if (!is_known(library_vocabulary().tests, test)) not_served("the test " + test);
  }
  const CallValues rest = behind(arguments, place);
  std::vector<Value> kept;
  for (const Value& item : elements_of(object, budget)) {
    budget.charge(1);
    const Value looked_at = attribute == nullptr ? item : attribute_path(item, *attribute, budget);
    const bool holds = test.empty() ? is_true(looked_at) : apply_test(test, looked_at, rest, budget);
    if (holds == selects) kept.push_back(item);
  }
  return generator(std::move(kept));
}

Value filter_safe(const Value& object, const CallValues& arguments, Budget& budget) {
  arguments.check("safe", {});
  return text_of(object, budget);
}

Value filter_string(const Value& object, const CallValues& arguments, Budget& budget) {
  arguments.check("string", {});
  return text_of(object, budget);
}

/// A number written in a text as Python's float() reads it, but for underscores and names.
std::optional<double> number_in(std::string_view text) {
  text = strip(text, nullptr, true, true);
  if (text.starts_with('+')) text.remove_prefix(1);
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() ||
      text.find_first_of("nN") != std::string_view::npos)
    return std::nullopt;
  return number;
}

Value truncated(double number) {
  if (!(std::abs(number) < 0x1p63)) not_served("a whole number of 2^63 or more");
  return static_cast<std::int64_t>(number);
}

Value filter_int(const Value& object, const CallValues& arguments, Budget&) {
  arguments.check("int", {"default"});
  if (object.is_whole()) return object.whole();
  if (object.is<double>() && std::isfinite(object.number())) return truncated(object.number());
  if (object.is_text()) {
    const std::string_view text = strip(object.text(), nullptr, true, true);
    std::int64_t whole = 0;
    const char* const first = text.data() + (text.starts_with('+') ? 1 : 0);
    const auto [end, error] = std::from_chars(first, text.data() + text.size(), whole);
    if (error == std::errc() && end == text.data() + text.size()) return whole;
    if (const auto number = number_in(text); number && std::isfinite(*number)) return truncated(*number);
  }
  const Value* otherwise = arguments.find(0, "default");
  return otherwise == nullptr ? Value(std::int64_t{0}) : *otherwise;
}

Value filter_float(const Value& object, const CallValues& arguments, Budget&) {
  arguments.check("float", {"default"});
  if (object.is_number()) return object.number();
  if (object.is_text()) {
    if (const auto number = number_in(object.text())) return *number;
  }
  const Value* otherwise = arguments.find(0, "default");
  return otherwise == nullptr ? Value(0.0) : *otherwise;
}

Value filter_abs(const Value& object, const CallValues& arguments, Budget& budget) {
  arguments.check("abs", {});
  if (!object.is_number()) throw Problem(fmt::format("abs: found {}, expected a number", type_name(object)));
  return object.number() < 0 ? arithmetic("-", std::int64_t{0}, object, budget)
                             : arithmetic("+", std::int64_t{0}, object, budget);
}

Value filter_reverse(const Value& object, const CallValues& arguments, Budget& budget) {
  arguments.check("reverse", {});
  std::vector<Value> elements = elements_of(object, budget);
  std::ranges::reverse(elements);
  if (object.is_text()) return join_texts("reverse", "", elements, false, budget);
  return generator(std::move(elements));
}

Value filter_items(const Value& object, const CallValues& arguments, Budget& budget) {
  arguments.check("items", {});
  if (object.is_undefined()) return generator({});
  if (object.dict() == nullptr)
    throw Problem(fmt::format("items: found {}, expected a dict", type_name(object)));
  return generator(
      elements_of(call_method({std::make_shared<const Value>(object), "items"}, {}, budget), budget));
}

constexpr std::pair<std::string_view, FilterFunction> filters[] = {
    {"trim", filter_trim},
    {"length", filter_length},
    {"count", filter_length},
    {"join", filter_join},
    {"tojson", filter_tojson},
    {"default", filter_default},
    {"d", filter_default},
    {"first", filter_first},
    {"last", filter_last},
    {"upper", filter_case<Case::upper>},
    {"lower", filter_case<Case::lower>},
    {"title", filter_case<Case::title>},
    {"capitalize", filter_case<Case::capital>},
    {"replace", filter_replace},
    {"list", filter_list},
    {"map", filter_map},
    {"select", filter_select<false, true>},
    {"reject", filter_select<false, false>},
    {"selectattr", filter_select<true, true>},
    {"rejectattr", filter_select<true, false>},
    {"safe", filter_safe},
    {"string", filter_string},
    {"int", filter_int},
    {"float", filter_float},
    {"abs", filter_abs},
    {"reverse", filter_reverse},
    {"items", filter_items},
};

// ---- tests ------------------------------------------------------------------------------------------------
using TestFunction = bool (*)(const Value&, const CallValues&, Budget&);

const Value& other(const CallValues& arguments) { return needed("test", arguments, 0, "other"); }
bool is_truth(const Value& value, bool truth) {
  const bool* found = std::get_if<bool>(&value.data());
  return found != nullptr && *found == truth;
}

constexpr TestFunction test_equal = [](const Value& v, const CallValues& a, Budget& b) {
  return equal(v, other(a), b);
};
constexpr TestFunction test_unequal = [](const Value& v, const CallValues& a, Budget& b) {
  return !equal(v, other(a), b);
};
constexpr TestFunction test_less = [](const Value& v, const CallValues& a, Budget& b) {
  return less(v, other(a), b);
};
constexpr TestFunction test_greater = [](const Value& v, const CallValues& a, Budget& b) {
  return less(other(a), v, b);
};
bool test_iterable(const Value& v, const CallValues&, Budget&) {
  return v.is_text() || v.sequence() != nullptr || v.dict() != nullptr || v.is_undefined();
}
std::int64_t remainder_by(const Value& v, const Value& divisor, Budget& budget) {
  return whole_argument("test", arithmetic("%", v, divisor, budget));
}

constexpr std::pair<std::string_view, TestFunction> tests[] = {
    {"defined", [](const Value& v, const CallValues&, Budget&) { return !v.is_undefined(); }},
    {"undefined", [](const Value& v, const CallValues&, Budget&) { return v.is_undefined(); }},
    {"none", [](const Value& v, const CallValues&, Budget&) { return v.is<None>(); }},
    {"string", [](const Value& v, const CallValues&, Budget&) { return v.is_text(); }},
    {"mapping", [](const Value& v, const CallValues&, Budget&) { return v.dict() != nullptr; }},
    {"iterable", test_iterable},
    {"sequence",
     [](const Value& v, const CallValues& a, Budget& b) {
       const Sequence* list = v.sequence();
       if (list != nullptr && list->kind == Sequence::Kind::view) not_served("the test sequence of a view");
       return test_iterable(v, a, b) && (list == nullptr || list->kind != Sequence::Kind::generator);
     }},
    {"number", [](const Value& v, const CallValues&, Budget&) { return v.is_number(); }},
    {"integer", [](const Value& v, const CallValues&, Budget&) { return v.is<std::int64_t>(); }},
    {"float", [](const Value& v, const CallValues&, Budget&) { return v.is<double>(); }},
    {"boolean", [](const Value& v, const CallValues&, Budget&) { return v.is<bool>(); }},
    {"true", [](const Value& v, const CallValues&, Budget&) { return is_truth(v, true); }},
    {"false", [](const Value& v, const CallValues&, Budget&) { return is_truth(v, false); }},
    {"odd",
     [](const Value& v, const CallValues&, Budget& b) { return remainder_by(v, std::int64_t{2}, b) == 1; }},
    {"even",
     [](const Value& v, const CallValues&, Budget& b) { return remainder_by(v, std::int64_t{2}, b) == 0; }},
    {"divisibleby", [](const Value& v, const CallValues& a,
                       Budget& b) { return remainder_by(v, needed("divisibleby", a, 0, "num"), b) == 0; }},
    {"equalto", test_equal},
    {"eq", test_equal},
    {"==", test_equal},
    {"ne", test_unequal},
    {"!=", test_unequal},
    {"lt", test_less},
    {"lessthan", test_less},
    {"<", test_less},
    {"gt", test_greater},
    {"greaterthan", test_greater},
    {">", test_greater},
    {"in", [](const Value& v, const CallValues& a,
              Budget& b) { return contains(needed("in", a, 0, "seq"), v, b); }},
    {"callable", [](const Value& v, const CallValues&,
                    Budget&) { return v.is<const Macro*>() || v.is<Method>() || v.is<Function>(); }},
};

// ---- methods ----------------------------------------------------------------------------------------------
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

std::int64_t checked(std::optional<std::int64_t> result) {
  if (!result) not_served("a whole number of 2^63 or more");
  return *result;
}

std::optional<std::int64_t> whole_result(std::string_view op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (op == "+" && !__builtin_add_overflow(a, b, &result)) return result;
  if (op == "-" && !__builtin_sub_overflow(a, b, &result)) return result;
  if (op == "*" && !__builtin_mul_overflow(a, b, &result)) return result;
  if (op == "//" || op == "%") {
    if (b == -1) return op == "%" ? 0 : whole_result("-", 0, a);
    const std::int64_t remainder = a % b;
    const bool moves = remainder != 0 && (remainder < 0) != (b < 0);  // Python rounds down
    return op == "%" ? remainder + (moves ? b : 0) : a / b - (moves ? 1 : 0);
  }
  return std::nullopt;
}

Value repeated(const Value& value, std::int64_t count, Budget& budget) {
  count = std::max<std::int64_t>(count, 0);
  if (value.is_text()) {
    const std::string& text = value.text();
    if (!text.empty() && static_cast<std::uint64_t>(count) > Budget::text_bytes)
      budget.charge_text(Budget::text_bytes + 1);
    budget.charge_text(text.size() * static_cast<std::size_t>(text.empty() ? 0 : count));
    std::string out;
    for (std::int64_t i = 0; i < count && !text.empty(); ++i) out += text;
    return out;
  }
  Sequence list{.kind = value.sequence()->kind, .items = {}};
  const std::vector<Value>& items = value.sequence()->items;
  for (std::int64_t i = 0; i < count && !items.empty(); ++i) {
    budget.charge_elements(items.size());
    list.items.insert(list.items.end(), items.begin(), items.end());
  }
  return list;
}

bool is_plain_list(const Value& value) {
  const Sequence* list = value.sequence();
  return list != nullptr && (list->kind == Sequence::Kind::list || list->kind == Sequence::Kind::tuple);
}

}  // namespace

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

const Vocabulary& library_vocabulary() {
  static const Vocabulary vocabulary = [] {
    Vocabulary names;
    for (const auto& [name, function] : filters) names.filters.push_back(name);
    for (const auto& [name, function] : tests) names.tests.push_back(name);
    return names;
  }();
  return vocabulary;
}

Value apply_filter(std::string_view name, const Value& object, const CallValues& arguments, Budget& budget) {
  for (const auto& [known, function] : filters) {
    if (known == name) return function(object, arguments, budget);
  }
  not_served(fmt::format("the filter {}", name));
}

bool apply_test(std::string_view name, const Value& object, const CallValues& arguments, Budget& budget) {
  for (const auto& [known, function] : tests) {
    if (known == name) return function(object, arguments, budget);
  }
  not_served(fmt::format("the test {}", name));
}

bool is_function(std::string_view name) {
  return name == "range" || name == "dict" || name == "namespace" || name == "raise_exception";
}

Value call_function(std::string_view name, const CallValues& arguments, Budget& budget) {
  if (name == "dict") {
    if (!arguments.positional.empty()) not_served("dict() with arguments without names");
    Dict dict;
    for (const auto& [key, value] : arguments.named) dict.entries.emplace_back(Value(key), value);
    return dict;
  }
  arguments.check("range", {"", "", ""});
  if (!arguments.named.empty() || arguments.positional.empty())
    throw Problem("range: expected one to three whole numbers");
  std::vector<std::int64_t> bounds;
  for (const Value& value : arguments.positional) bounds.push_back(whole_argument("range", value));
  const std::int64_t start = bounds.size() > 1 ? bounds[0] : 0;
  const std::int64_t stop = bounds.size() > 1 ? bounds[1] : bounds[0];
  const std::int64_t step = bounds.size() > 2 ? bounds[2] : 1;
  if (step == 0) throw Problem("range: the step is 0");
  Sequence view{.kind = Sequence::Kind::view, .items = {}};
  for (std::int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (view.items.size() == 100'000)
      throw Problem("range: more than 100000 numbers");  // Jinja's sandbox too
    budget.charge(1);
    view.items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return view;
}

Value call_method(const Method& method, const CallValues& arguments, Budget& budget) {
  const Value& self = *method.self;
  if (self.is_text() && is_among(text_methods, method.name))
    return call_text_method(self.text(), method.name, arguments, budget);
  if (self.dict() != nullptr && is_among(dict_methods, method.name))
    return call_dict_method(*self.dict(), method.name, arguments, budget);
  not_served(fmt::format("the method {} of {}", method.name, type_name(self)));
}

Value attribute_of(const Value& object, const std::string& name) {
  if (object.is_undefined())
    throw Problem(fmt::format("{} is undefined", std::get<Undefined>(object.data()).name));
  if (object.is<Namespace*>()) {
    Namespace& space = *std::get<Namespace*>(object.data());
    if (space.is_loop) return space.loop_attribute(name);
    const Value* found = space.find(name);
    return found == nullptr ? Value(Undefined{name}) : *found;
  }
  if (name.starts_with("__")) not_served("the attribute " + name);
  Value method = method_of(object, name);
  if (!method.is_undefined()) return method;
  if (const Dict* dict = object.dict()) {
    if (const Value* found = dict->find(Value(name))) return *found;
  }
  return method;
}

Value element_of(const Value& object, const Value& key, Budget& budget) {
  budget.charge(1);
  if (object.is_undefined())
    throw Problem(fmt::format("{} is undefined", std::get<Undefined>(object.data()).name));
  if (const Dict* dict = object.dict()) {
    budget.charge(dict->entries.size());
    if (const Value* found = dict->find(key)) return *found;
    if (key.is_text()) return attribute_of(object, key.text());
    return Undefined{"an element"};
  }
  if (key.is_text()) return attribute_of(object, key.text());
  if (!key.is_whole() || !(object.is_text() || object.sequence() != nullptr)) return Undefined{"an element"};
  const Sequence* list = object.sequence();
  if (list != nullptr && !is_plain_list(object)) not_served("an element of a view or generator");
  const std::vector<std::string_view> characters =
      list == nullptr ? characters_of(object.text()) : std::vector<std::string_view>();
  budget.charge(characters.size() / 64);
  const auto size = static_cast<std::int64_t>(list == nullptr ? characters.size() : list->items.size());
  const std::int64_t index = key.whole() < 0 ? key.whole() + size : key.whole();
  if (index < 0 || index >= size) return Undefined{"an element"};
  const auto place = static_cast<std::size_t>(index);
  return list == nullptr ? Value(std::string(characters[place])) : list->items[place];
}

Value slice_of(const Value& object, const Value& start, const Value& stop, const Value& step,
               Budget& budget) {
  if (!object.is_text() && !is_plain_list(object)) {
    if (object.is_undefined())
      throw Problem(fmt::format("{} is undefined", std::get<Undefined>(object.data()).name));
    not_served("a slice of " + type_name(object));
  }
  const std::vector<Value> elements = elements_of(object, budget);
  const auto size = static_cast<std::int64_t>(elements.size());
  const std::int64_t stride = step.is<None>() ? 1 : whole_argument("slice", step);
  if (stride == 0) throw Problem("slice: the step is 0");
  const std::int64_t lowest = stride > 0 ? 0 : -1;
  const std::int64_t highest = stride > 0 ? size : size - 1;
  const auto bound = [&](const Value& value, std::int64_t otherwise) {
    if (value.is<None>()) return otherwise;
    const std::int64_t given = whole_argument("slice", value);
    return std::clamp(given < 0 ? given + size : given, lowest, highest);
  };
  const std::int64_t first = bound(start, stride > 0 ? lowest : highest);
  const std::int64_t last = bound(stop, stride > 0 ? highest : lowest);
  std::vector<Value> picked;
  for (std::int64_t i = first; stride > 0 ? i < last : i > last;) {
    picked.push_back(elements[static_cast<std::size_t>(i)]);
    if (__builtin_add_overflow(i, stride, &i)) break;
  }
  if (object.is_text()) return join_texts("slice", "", picked, false, budget);
  return Sequence{.kind = object.sequence()->kind, .items = std::move(picked)};
}

Value arithmetic(std::string_view op, const Value& a, const Value& b, Budget& budget) {
  budget.charge(1);
  if (a.is_number() && b.is_number()) {
    const bool divides = op == "/" || op == "//" || op == "%";
    if (divides && b.number() == 0) throw Problem("a division by 0");
    if (a.is_whole() && b.is_whole() && op != "/") return checked(whole_result(op, a.whole(), b.whole()));
    const double x = a.number();
    const double y = b.number();
    if (op == "+") return x + y;
    if (op == "-") return x - y;
    if (op == "*") return x * y;
    if (op == "/") return x / y;
    not_served(fmt::format("{} of numbers that are not whole", op));
  }
  if (op == "+" && a.is_text() && b.is_text()) {
    budget.charge_text(a.text().size() + b.text().size());
    return a.text() + b.text();
  }
  if (op == "+" && is_plain_list(a) && is_plain_list(b) && a.sequence()->kind == b.sequence()->kind) {
    Sequence list{.kind = a.sequence()->kind, .items = a.sequence()->items};
    const std::vector<Value>& more = b.sequence()->items;
    budget.charge_elements(list.items.size() + more.size());
    list.items.insert(list.items.end(), more.begin(), more.end());
    return list;
  }
  if (op == "*" && b.is_whole() && (a.is_text() || is_plain_list(a))) return repeated(a, b.whole(), budget);
  if (op == "*" && a.is_whole() && (b.is_text() || is_plain_list(b))) return repeated(b, a.whole(), budget);
  if (op == "%" && a.is_text()) not_served("% of a text");
  for (const Value* value : {&a, &b}) {
    if (value->is_undefined())
      throw Problem(fmt::format("{} is undefined", std::get<Undefined>(value->data()).name));
  }
  throw Problem(fmt::format("{} {} {} is not defined", type_name(a), op, type_name(b)));
}

}  // namespace mezzo::jinja
