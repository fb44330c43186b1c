#include "jinja_library.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "jinja_text.h"

namespace mezzo::jinja {
namespace {

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
