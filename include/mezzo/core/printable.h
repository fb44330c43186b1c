#pragma once
// Texts from files, models and file names, made fit for a terminal.
#include <string>
#include <string_view>

namespace mezzo {

/// `text` as one line that a terminal shows as it is written. What would move a cursor, change the order of
/// what is shown or break the line is escaped, and so is what is no UTF-8:
///   a line feed                                             \n
///   other control characters (but tab), bytes that are no UTF-8   \x1b
///   C1 controls, marks of direction, separators of lines          \u009b, \u202e
/// A text without any of these is returned as it is; backslashes are not escaped.
std::string printable(std::string_view text);

/// The same for a text of several lines, which stay lines.
std::string printable_lines(std::string_view text);

}  // namespace mezzo
