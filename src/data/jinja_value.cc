#include "jinja_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "mezzo/core/utf8.h"

namespace mezzo::jinja {
namespace {

/// Python's repr() of a float.
std::string float_text(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

std::string repr_of_text(std::string_view text) {
  const char quote =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) not_served("a list or dict printed with a text beyond ASCII (use tojson)");
    if (c == quote || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + quote;
}

std::string repr(const Value& value, Budget& budget) {
  return value.is_text() ? repr_of_text(value.text()) : text_of(value, budget);
}

void append_json_text(std::string& out, std::string_view text, bool ensure_ascii) {
  out += '"';
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    const auto byte = static_cast<unsigned char>(c);
    std::size_t size = 1;
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (byte < 0x20) {
          out += fmt::format("\\u{:04x}", byte);
        } else if (byte < 0x80 || !ensure_ascii) {
          out += c;
        } else {
          const CodePoint point = first_code_point(text.substr(i));
          size = point.size;
          if (point.value < 0x10000) {
            out += fmt::format("\\u{:04x}", static_cast<unsigned>(point.value));
          } else {
            const auto rest = static_cast<unsigned>(point.value) - 0x10000u;
            out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800u + (rest >> 10), 0xDC00u + (rest & 0x3FFu));
          }
        }
    }
    i += size;
  }
  out += '"';
}

void append_json(std::string& out, const Value& value, const JsonStyle& style, int level, Budget& budget) {
  budget.charge(1);
  const auto break_line = [&](int levels) {
    if (style.indent >= 0) out += '\n' + std::string(static_cast<std::size_t>(style.indent * levels), ' ');
  };
  if (value.is<None>()) {
    out += "null";
  } else if (const bool* truth = std::get_if<bool>(&value.data())) {
    out += *truth ? "true" : "false";
  } else if (value.is<double>()) {
    const double number = value.number();
    out += std::isnan(number)   ? "NaN"
           : std::isinf(number) ? (number > 0 ? "Infinity" : "-Infinity")
                                : float_text(number);
  } else if (value.is_number()) {
    out += std::to_string(value.whole());
  } else if (value.is_text()) {
    budget.charge_text(out.size() + value.text().size());
    append_json_text(out, value.text(), style.ensure_ascii);
  } else if (const Sequence* list = value.sequence();
             list != nullptr && (list->kind == Sequence::Kind::list || list->kind == Sequence::Kind::tuple)) {
    out += '[';
    for (std::size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) out += style.item_separator;
      break_line(level + 1);
      append_json(out, list->items[i], style, level + 1, budget);
    }
    if (!list->items.empty()) break_line(level);
    out += ']';
  } else if (const Dict* dict = value.dict()) {
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict->entries) entries.push_back(&entry);
    if (style.sort_keys) {
      std::ranges::stable_sort(
          entries, [&](const auto* a, const auto* b) { return less(a->first, b->first, budget); });
    }
    out += '{';
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out += style.item_separator;
      break_line(level + 1);
      const Value& key = entries[i]->first;
      if (key.is_text()) {
        append_json_text(out, key.text(), style.ensure_ascii);
      } else {
        if (!key.is_number() && !key.is<None>()) throw Problem("tojson: a key is a " + type_name(key));
        out += '"';
        append_json(out, key, style, level + 1, budget);
        out += '"';
      }
      out += style.key_separator;
      append_json(out, entries[i]->second, style, level + 1, budget);
    }
    if (!entries.empty()) break_line(level);
    out += '}';
  } else {
    throw Problem(fmt::format("tojson: a value is {}", type_name(value)));
  }
}

}  // namespace

void not_served(std::string_view what) { throw Problem(fmt::format("{} is not served", what)); }

void Budget::charge(std::uint64_t count) {
  if (count > left_) throw Problem(fmt::format("the template takes more than {} steps", steps));
  left_ -= count;
}

void Budget::charge_text(std::size_t bytes) {
  if (bytes > text_bytes)
    throw Problem(fmt::format("the template makes a text of more than {} bytes", text_bytes));
  charge(1 + bytes / 64);
}

namespace {
/// A bound that lets everything else go down into values by recursion.
void check_depth(int depth) {
  if (depth > 100) throw Problem("lists and dicts more than 100 levels deep");
}
}  // namespace

Value::Value(Sequence v) {
  for (const Value& item : v.items) v.depth = std::max(v.depth, item.depth() + 1);
  check_depth(v.depth);
  data_ = std::make_shared<const Sequence>(std::move(v));
}

Value::Value(Dict v) {
  for (const auto& entry : v.entries) v.depth = std::max(v.depth, entry.second.depth() + 1);
  check_depth(v.depth);
  data_ = std::make_shared<const Dict>(std::move(v));
}

int Value::depth() const {
  const Sequence* list = sequence();
  const Dict* entries = dict();
  return list != nullptr ? list->depth : entries != nullptr ? entries->depth : 0;
}

std::int64_t Value::whole() const {
  if (const bool* truth = std::get_if<bool>(&data_)) return *truth ? 1 : 0;
  return std::get<std::int64_t>(data_);
}

double Value::number() const {
  if (const double* number = std::get_if<double>(&data_)) return *number;
  return static_cast<double>(whole());
}

const Sequence* Value::sequence() const {
  const auto* found = std::get_if<SequencePtr>(&data_);
  return found == nullptr ? nullptr : found->get();
}

const Dict* Value::dict() const {
  const auto* found = std::get_if<DictPtr>(&data_);
  return found == nullptr ? nullptr : found->get();
}

const Value* Dict::find(const Value& key) const {
  Budget unbounded;  // keys are texts and numbers
  for (const auto& [name, value] : entries) {
    if (equal(name, key, unbounded)) return &value;
  }
  return nullptr;
}

Value* Namespace::find(std::string_view name) {
  for (auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

Value Namespace::loop_attribute(const std::string& name) const {
  if (at >= elements.size()) return Undefined{"loop." + name};  // the loop is over
  const auto index = static_cast<std::int64_t>(at);
  const auto length = static_cast<std::int64_t>(elements.size());
  if (name == "index") return index + 1;
  if (name == "index0") return index;
  if (name == "revindex") return length - index;
  if (name == "revindex0") return length - 1 - index;
  if (name == "length") return length;
  if (name == "first") return index == 0;
  if (name == "last") return index + 1 == length;
  if (name == "previtem" && index > 0) return elements[at - 1];
  if (name == "nextitem" && index + 1 < length) return elements[at + 1];
  return Undefined{"loop." + name};
}

Value value_of(const nlohmann::ordered_json& json) {
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::null:
      return {};
    case nlohmann::ordered_json::value_t::boolean:
      return json.get<bool>();
    case nlohmann::ordered_json::value_t::number_integer:
      return json.get<std::int64_t>();
    case nlohmann::ordered_json::value_t::number_unsigned: {
      const auto number = json.get<std::uint64_t>();
      if (number > static_cast<std::uint64_t>(INT64_MAX)) not_served("a whole number of 2^63 or more");
      return static_cast<std::int64_t>(number);
    }
    case nlohmann::ordered_json::value_t::number_float:
      return json.get<double>();
    case nlohmann::ordered_json::value_t::string:
      return json.get<std::string>();
    case nlohmann::ordered_json::value_t::array: {
      Sequence list;
      for (const auto& item : json) list.items.push_back(value_of(item));
      return list;
    }
    case nlohmann::ordered_json::value_t::object: {
      Dict dict;
      for (auto item = json.begin(); item != json.end(); ++item)
        dict.entries.emplace_back(Value(item.key()), value_of(item.value()));
      return dict;
    }
    default:
      not_served("a binary value");
  }
}

std::string type_name(const Value& value) {
  struct Names {
    std::string operator()(const Undefined&) const { return "undefined"; }
    std::string operator()(const None&) const { return "none"; }
    std::string operator()(bool) const { return "a boolean"; }
    std::string operator()(std::int64_t) const { return "a whole number"; }
    std::string operator()(double) const { return "a number"; }
    std::string operator()(const Value::Text&) const { return "a text"; }
    std::string operator()(const Value::SequencePtr&) const { return "a list"; }
    std::string operator()(const Value::DictPtr&) const { return "a dict"; }
    std::string operator()(const Namespace*) const { return "a namespace"; }
    std::string operator()(const Macro*) const { return "a macro"; }
    std::string operator()(const Method& method) const { return "the method " + method.name; }
    std::string operator()(const Function& function) const { return "the function " + function.name; }
  };
  return std::visit(Names{}, value.data());
}

bool is_true(const Value& value) {
  if (value.is_undefined() || value.is<None>()) return false;
  if (value.is_number()) return value.number() != 0;  // NaN is true
  if (value.is_text()) return !value.text().empty();
  if (const Sequence* list = value.sequence())
    return list->kind == Sequence::Kind::generator || !list->items.empty();
  if (const Dict* dict = value.dict()) return !dict->entries.empty();
  return true;
}

std::string text_of(const Value& value, Budget& budget) {
  budget.charge(1);
  if (value.is_undefined()) return "";
  if (value.is<None>()) return "None";
  if (const bool* truth = std::get_if<bool>(&value.data())) return *truth ? "True" : "False";
  if (value.is_whole()) return std::to_string(value.whole());
  if (value.is<double>()) return float_text(value.number());
  if (value.is_text()) {
    budget.charge_text(value.text().size());
    return value.text();
  }
  std::string out;
  const auto add = [&](const std::string& piece) {
    budget.charge_text(out.size() + piece.size());
    out += piece;
  };
  if (const Sequence* list = value.sequence();
      list != nullptr && (list->kind == Sequence::Kind::list || list->kind == Sequence::Kind::tuple)) {
    const bool is_list = list->kind == Sequence::Kind::list;
    out = is_list ? "[" : "(";
    for (std::size_t i = 0; i < list->items.size(); ++i)
      add((i > 0 ? ", " : "") + repr(list->items[i], budget));
    if (!is_list && list->items.size() == 1) out += ',';
    return out + (is_list ? ']' : ')');
  }
  if (const Dict* dict = value.dict()) {
    out = "{";
    for (std::size_t i = 0; i < dict->entries.size(); ++i) {
      const auto& [key, item] = dict->entries[i];
      add((i > 0 ? ", " : "") + repr(key, budget) + ": " + repr(item, budget));
    }
    return out + '}';
  }
  not_served(
      fmt::format("the text of {}", value.sequence() != nullptr ? "a view or generator" : type_name(value)));
}

bool equal(const Value& a, const Value& b, Budget& budget) {
  budget.charge(1);
  if (a.is_number() && b.is_number()) {
    return a.is_whole() && b.is_whole() ? a.whole() == b.whole() : a.number() == b.number();
  }
  if (a.is_text() && b.is_text()) return a.text() == b.text();
  if (a.data().index() != b.data().index()) return false;
  if (const Sequence* left = a.sequence()) {
    const Sequence* right = b.sequence();
    if (left->kind != right->kind || left->items.size() != right->items.size()) return false;
    if (left->kind == Sequence::Kind::generator) return left == right;
    for (std::size_t i = 0; i < left->items.size(); ++i) {
      if (!equal(left->items[i], right->items[i], budget)) return false;
    }
    return true;
  }
  if (const Dict* left = a.dict()) {
    const Dict* right = b.dict();
    if (left->entries.size() != right->entries.size()) return false;
    for (const auto& [key, value] : left->entries) {
      budget.charge(right->entries.size());
      const Value* other = right->find(key);
      if (other == nullptr || !equal(value, *other, budget)) return false;
    }
    return true;
  }
  if (a.is_undefined() || a.is<None>()) return true;
  if (a.is<Namespace*>()) return std::get<Namespace*>(a.data()) == std::get<Namespace*>(b.data());
  not_served(fmt::format("comparing {}", type_name(a)));
}

bool less(const Value& a, const Value& b, Budget& budget) {
  budget.charge(1);
  if (a.is_number() && b.is_number()) {
    return a.is_whole() && b.is_whole() ? a.whole() < b.whole() : a.number() < b.number();
  }
  if (a.is_text() && b.is_text()) return a.text() < b.text();  // UTF-8 sorts as its characters do
  throw Problem(fmt::format("{} and {} have no order", type_name(a), type_name(b)));
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  if (container.is_text()) {
    if (!item.is_text())
      throw Problem(fmt::format("`in` a text: found {}, expected a text", type_name(item)));
    budget.charge_text(container.text().size());
    return container.text().find(item.text()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) {
    budget.charge(dict->entries.size());
    return dict->find(item) != nullptr;
  }
  for (const Value& element : elements_of(container, budget)) {
    if (equal(element, item, budget)) return true;
  }
  return false;
}

std::vector<Value> elements_of(const Value& value, Budget& budget) {
  if (const Sequence* list = value.sequence()) {
    budget.charge_elements(list->items.size());
    const auto begin = list->items.begin() + static_cast<std::ptrdiff_t>(list->next);
    if (list->kind == Sequence::Kind::generator) list->next = list->items.size();
    return {begin, list->items.end()};
  }
  std::vector<Value> elements;
  if (value.is_text()) {
    budget.charge_elements(value.text().size());
    for (const std::string_view character : characters_of(value.text()))
      elements.emplace_back(std::string(character));
  } else if (const Dict* dict = value.dict()) {
    budget.charge_elements(dict->entries.size());
    for (const auto& entry : dict->entries) elements.push_back(entry.first);
  } else if (!value.is_undefined()) {
    throw Problem(fmt::format("found {}, expected a list, a dict or a text", type_name(value)));
  }
  return elements;
}

std::size_t length_of(const Value& value) {
  if (const Sequence* list = value.sequence(); list != nullptr && list->kind != Sequence::Kind::generator)
    return list->items.size();
  if (value.is_text()) return characters_of(value.text()).size();
  if (const Dict* dict = value.dict()) return dict->entries.size();
  if (value.is_undefined()) return 0;
  throw Problem(fmt::format("length: found {}, expected a list, a dict or a text", type_name(value)));
}

std::string json_of(const Value& value, const JsonStyle& style, Budget& budget) {
  std::string out;
  append_json(out, value, style, 0, budget);
  budget.charge_text(out.size());
  return out;
}

std::vector<std::string_view> characters_of(std::string_view text) {
  std::vector<std::string_view> characters;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t size = utf8_length(text.substr(i));
    characters.push_back(text.substr(i, size));
    i += size;
  }
  return characters;
}

bool starts_with_space(std::string_view text, std::size_t& size) {
  const CodePoint point = first_code_point(text);
  size = point.size;
  return is_white_space(point.value) || (point.value >= 0x1C && point.value <= 0x1F);
}

std::string_view strip(std::string_view text, const std::string* set, bool left, bool right) {
  const auto goes = [&](CodePoint point, std::string_view character) {
    if (set != nullptr)
      return set->find(character) != std::string::npos;  // UTF-8: no match within a character
    return is_white_space(point.value) || (point.value >= 0x1C && point.value <= 0x1F);
  };
  while (left && !text.empty()) {
    const CodePoint point = first_code_point(text);
    if (!goes(point, text.substr(0, point.size))) break;
    text.remove_prefix(point.size);
  }
  while (right && !text.empty()) {
    const CodePoint point = last_code_point(text);
    if (!goes(point, text.substr(text.size() - point.size))) break;
    text.remove_suffix(point.size);
  }
  return text;
}

}  // namespace mezzo::jinja
