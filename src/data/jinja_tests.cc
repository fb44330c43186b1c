#include "jinja_library.h"

#include <fmt/format.h>

namespace mezzo::jinja {
namespace {

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

}  // namespace

std::vector<std::string_view> test_names() {
  std::vector<std::string_view> names;
  for (const auto& [name, function] : tests) names.push_back(name);
  return names;
}

bool apply_test(std::string_view name, const Value& object, const CallValues& arguments, Budget& budget) {
  for (const auto& [known, function] : tests) {
    if (known == name) return function(object, arguments, budget);
  }
  not_served(fmt::format("the test {}", name));
}

}  // namespace mezzo::jinja
