#pragma once
// What filters and methods do with texts, as Python 3 does it.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "jinja_value.h"

namespace mezzo::jinja {

enum class Case { upper, lower, title, capital };

/// A Problem for letters beyond ASCII: they change in ways that a table of Unicode's would have to say.
std::string change_case(std::string_view callee, std::string text, Case to);

/// str.replace: the first `count` occurrences, all for a negative one.
std::string replace_in(const std::string& text, const std::string& from, const std::string& to,
                       std::int64_t count, Budget& budget);

/// str.split: at white space where `separator` is null; `limit` cuts at most, any number for a negative one.
Sequence split_text(std::string_view text, const std::string* separator, std::int64_t limit, Budget& budget);
Sequence split_lines(std::string_view text, bool keep_ends, Budget& budget);

/// str.join. `convert`: items become texts; else one that is no text is a Problem.
std::string join_texts(std::string_view callee, const std::string& separator, const std::vector<Value>& items,
                       bool convert, Budget& budget);

}  // namespace mezzo::jinja
