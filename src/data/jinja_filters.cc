#include "jinja_library.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "jinja_text.h"

namespace mezzo::jinja {
namespace {

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

}  // namespace

std::vector<std::string_view> filter_names() {
  std::vector<std::string_view> names;
  for (const auto& [name, function] : filters) names.push_back(name);
  return names;
}

Value apply_filter(std::string_view name, const Value& object, const CallValues& arguments, Budget& budget) {
  for (const auto& [known, function] : filters) {
    if (known == name) return function(object, arguments, budget);
  }
  not_served(fmt::format("the filter {}", name));
}

}  // namespace mezzo::jinja
