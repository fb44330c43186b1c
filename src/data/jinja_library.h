#pragma once
// What every template can use: filters, tests, functions and the methods of texts and dicts. The meaning of
// each is that of Jinja 3.1 and Python 3; what of it is not served is a Problem that says so.
#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja_parser.h"
#include "jinja_value.h"

namespace mezzo::jinja {

/// The values that a call gives, by place and by name.
class CallValues {
 public:
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  /// Problem naming `callee` for more arguments than `names`, for one that is none of them, and for one given
  /// twice.
  void check(std::string_view callee, std::initializer_list<std::string_view> names) const;
  /// The argument at a place or of a name; null where it is not given.
  const Value* find(std::size_t place, std::string_view name) const;
};

const Vocabulary& library_vocabulary();

Value apply_filter(std::string_view name, const Value& object, const CallValues& arguments, Budget& budget);
bool apply_test(std::string_view name, const Value& object, const CallValues& arguments, Budget& budget);

bool is_function(std::string_view name);
/// range() and dict(); the renderer itself serves namespace() and raise_exception().
Value call_function(std::string_view name, const CallValues& arguments, Budget& budget);
Value call_method(const Method& method, const CallValues& arguments, Budget& budget);

/// object.name: a method, else an element; and object[key]: the reverse. Undefined where there is neither.
Value attribute_of(const Value& object, const std::string& name);
Value element_of(const Value& object, const Value& key, Budget& budget);
/// object[start:stop:step]; none stands for what is not written.
Value slice_of(const Value& object, const Value& start, const Value& stop, const Value& step, Budget& budget);

/// + - * / // %.
Value arithmetic(std::string_view op, const Value& a, const Value& b, Budget& budget);

}  // namespace mezzo::jinja
