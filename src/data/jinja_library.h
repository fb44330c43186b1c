#pragma once
// What every template can use: filters, tests, functions and the methods of texts and dicts. The meaning of
// each is that of Jinja 3.1 and Python 3; what of it is not served is a Problem that says so.
#include <string>
#include <string_view>
#include <vector>

#include "jinja_call.h"
#include "jinja_parser.h"
#include "jinja_value.h"

namespace mezzo::jinja {

const Vocabulary& library_vocabulary();

// jinja_filters.cc
std::vector<std::string_view> filter_names();
Value apply_filter(std::string_view name, const Value& object, const CallValues& arguments, Budget& budget);

// jinja_tests.cc
std::vector<std::string_view> test_names();
bool apply_test(std::string_view name, const Value& object, const CallValues& arguments, Budget& budget);

bool is_function(std::string_view name);
/// range() and dict(); the renderer itself serves namespace() and raise_exception().
Value call_function(std::string_view name, const CallValues& arguments, Budget& budget);

// jinja_methods.cc
/// The method of a text, a dict or a list that has this name; Undefined where there is none. Calling one that
/// is not served is a Problem naming it.
Value method_of(const Value& object, const std::string& name);
Value call_method(const Method& method, const CallValues& arguments, Budget& budget);

// jinja_operators.cc
/// object.name: a method, else an element; and object[key]: the reverse. Undefined where there is neither.
Value attribute_of(const Value& object, const std::string& name);
Value element_of(const Value& object, const Value& key, Budget& budget);
/// object[start:stop:step]; none stands for what is not written.
Value slice_of(const Value& object, const Value& start, const Value& stop, const Value& step, Budget& budget);

/// + - * / // %.
Value arithmetic(std::string_view op, const Value& a, const Value& b, Budget& budget);

}  // namespace mezzo::jinja
