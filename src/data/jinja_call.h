#pragma once
// The arguments of a call in a template.
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

/// Each a Problem naming `callee` where the value is of another type or missing.
const std::string& text_argument(std::string_view callee, const Value& value);
std::int64_t whole_argument(std::string_view callee, const Value& value);
const Value& needed(std::string_view callee, const CallValues& arguments, std::size_t place,
                    std::string_view name);

}  // namespace mezzo::jinja
