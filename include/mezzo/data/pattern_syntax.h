#pragma once
// From Oniguruma's regular expressions (its own syntax, Unicode 16) to PCRE2's, for the part of the language
// in which both can be made to mean the same.
#include <string>
#include <string_view>

namespace mezzo {

/// `oniguruma` for PCRE2 with PCRE2_UTF and PCRE2_UCP. Served are literals, classes, general categories, \s
/// \d \w and their complements, groups, lookaround, (?i:...) over ASCII, and all quantifiers; anything else
/// is an InputError that quotes it, its offset, and `where`, the pattern's place (file and field).
std::string translate_pattern(std::string_view oniguruma, const std::string& where);

}  // namespace mezzo
