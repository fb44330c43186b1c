#include "mezzo/data/pattern_syntax.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

#include "mezzo/core/error.h"
#include "mezzo/data/utf8.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

/// Characters of one general category.
struct Range {
  std::uint32_t first;
  std::uint32_t last;
  const char* category;
};

/// What Unicode 15.0, 15.1 and 16.0 added to the general categories (UnicodeData.txt). Oniguruma as Hugging
/// Face tokenizers builds it knows Unicode 16, PCRE2 10.42 knows Unicode 14; to a newer PCRE2 this table adds
/// nothing.
constexpr Range added_since_unicode_14[] = {
    {0x897, 0x897, "Mn"},     {0xCF3, 0xCF3, "Mc"},     {0xECE, 0xECE, "Mn"},     {0x1B4E, 0x1B4F, "Po"},
    {0x1B7F, 0x1B7F, "Po"},   {0x1C89, 0x1C89, "Lu"},   {0x1C8A, 0x1C8A, "Ll"},   {0x2427, 0x2429, "So"},
    {0x2FFC, 0x2FFF, "So"},   {0x31E4, 0x31E5, "So"},   {0x31EF, 0x31EF, "So"},   {0xA7CB, 0xA7CC, "Lu"},
    {0xA7CD, 0xA7CD, "Ll"},   {0xA7DA, 0xA7DA, "Lu"},   {0xA7DB, 0xA7DB, "Ll"},   {0xA7DC, 0xA7DC, "Lu"},
    {0x105C0, 0x105F3, "Lo"}, {0x10D40, 0x10D49, "Nd"}, {0x10D4A, 0x10D4D, "Lo"}, {0x10D4E, 0x10D4E, "Lm"},
    {0x10D4F, 0x10D4F, "Lo"}, {0x10D50, 0x10D65, "Lu"}, {0x10D69, 0x10D6D, "Mn"}, {0x10D6E, 0x10D6E, "Pd"},
    {0x10D6F, 0x10D6F, "Lm"}, {0x10D70, 0x10D85, "Ll"}, {0x10D8E, 0x10D8F, "Sm"}, {0x10EC2, 0x10EC4, "Lo"},
    {0x10EFC, 0x10EFF, "Mn"}, {0x1123F, 0x11240, "Lo"}, {0x11241, 0x11241, "Mn"}, {0x11380, 0x11389, "Lo"},
    {0x1138B, 0x1138B, "Lo"}, {0x1138E, 0x1138E, "Lo"}, {0x11390, 0x113B5, "Lo"}, {0x113B7, 0x113B7, "Lo"},
    {0x113B8, 0x113BA, "Mc"}, {0x113BB, 0x113C0, "Mn"}, {0x113C2, 0x113C2, "Mc"}, {0x113C5, 0x113C5, "Mc"},
    {0x113C7, 0x113CA, "Mc"}, {0x113CC, 0x113CD, "Mc"}, {0x113CE, 0x113CE, "Mn"}, {0x113CF, 0x113CF, "Mc"},
    {0x113D0, 0x113D0, "Mn"}, {0x113D1, 0x113D1, "Lo"}, {0x113D2, 0x113D2, "Mn"}, {0x113D3, 0x113D3, "Lo"},
    {0x113D4, 0x113D5, "Po"}, {0x113D7, 0x113D8, "Po"}, {0x113E1, 0x113E2, "Mn"}, {0x116D0, 0x116E3, "Nd"},
    {0x1171E, 0x1171E, "Mc"}, {0x11B00, 0x11B09, "Po"}, {0x11BC0, 0x11BE0, "Lo"}, {0x11BE1, 0x11BE1, "Po"},
    {0x11BF0, 0x11BF9, "Nd"}, {0x11F00, 0x11F01, "Mn"}, {0x11F02, 0x11F02, "Lo"}, {0x11F03, 0x11F03, "Mc"},
    {0x11F04, 0x11F10, "Lo"}, {0x11F12, 0x11F33, "Lo"}, {0x11F34, 0x11F35, "Mc"}, {0x11F36, 0x11F3A, "Mn"},
    {0x11F3E, 0x11F3F, "Mc"}, {0x11F40, 0x11F40, "Mn"}, {0x11F41, 0x11F41, "Mc"}, {0x11F42, 0x11F42, "Mn"},
    {0x11F43, 0x11F4F, "Po"}, {0x11F50, 0x11F59, "Nd"}, {0x11F5A, 0x11F5A, "Mn"}, {0x1342F, 0x1342F, "Lo"},
    {0x13439, 0x1343F, "Cf"}, {0x13440, 0x13440, "Mn"}, {0x13441, 0x13446, "Lo"}, {0x13447, 0x13455, "Mn"},
    {0x13460, 0x143FA, "Lo"}, {0x16100, 0x1611D, "Lo"}, {0x1611E, 0x16129, "Mn"}, {0x1612A, 0x1612C, "Mc"},
    {0x1612D, 0x1612F, "Mn"}, {0x16130, 0x16139, "Nd"}, {0x16D40, 0x16D42, "Lm"}, {0x16D43, 0x16D6A, "Lo"},
    {0x16D6B, 0x16D6C, "Lm"}, {0x16D6D, 0x16D6F, "Po"}, {0x16D70, 0x16D79, "Nd"}, {0x18CFF, 0x18CFF, "Lo"},
    {0x1B132, 0x1B132, "Lo"}, {0x1B155, 0x1B155, "Lo"}, {0x1CC00, 0x1CCEF, "So"}, {0x1CCF0, 0x1CCF9, "Nd"},
    {0x1CD00, 0x1CEB3, "So"}, {0x1D2C0, 0x1D2D3, "No"}, {0x1DF25, 0x1DF2A, "Ll"}, {0x1E030, 0x1E06D, "Lm"},
    {0x1E08F, 0x1E08F, "Mn"}, {0x1E4D0, 0x1E4EA, "Lo"}, {0x1E4EB, 0x1E4EB, "Lm"}, {0x1E4EC, 0x1E4EF, "Mn"},
    {0x1E4F0, 0x1E4F9, "Nd"}, {0x1E5D0, 0x1E5ED, "Lo"}, {0x1E5EE, 0x1E5EF, "Mn"}, {0x1E5F0, 0x1E5F0, "Lo"},
    {0x1E5F1, 0x1E5FA, "Nd"}, {0x1E5FF, 0x1E5FF, "Po"}, {0x1F6DC, 0x1F6DC, "So"}, {0x1F774, 0x1F776, "So"},
    {0x1F77B, 0x1F77F, "So"}, {0x1F7D9, 0x1F7D9, "So"}, {0x1F8B2, 0x1F8BB, "So"}, {0x1F8C0, 0x1F8C1, "So"},
    {0x1FA75, 0x1FA77, "So"}, {0x1FA87, 0x1FA89, "So"}, {0x1FA8F, 0x1FA8F, "So"}, {0x1FAAD, 0x1FAAF, "So"},
    {0x1FABB, 0x1FABF, "So"}, {0x1FAC6, 0x1FAC6, "So"}, {0x1FACE, 0x1FACF, "So"}, {0x1FADA, 0x1FADC, "So"},
    {0x1FADF, 0x1FADF, "So"}, {0x1FAE8, 0x1FAE9, "So"}, {0x1FAF7, 0x1FAF8, "So"}, {0x1FBCB, 0x1FBEF, "So"},
    {0x2B739, 0x2B739, "Lo"}, {0x2EBF0, 0x2EE5D, "Lo"}, {0x31350, 0x323AF, "Lo"},
};

// Unicode's White_Space and its complement. PCRE2's \s has U+180E besides, which Unicode 6.3 took out.
constexpr std::string_view white_space =
    R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
constexpr std::string_view not_white_space =
    R"(\x{0}-\x{8}\x{E}-\x{1F}\x{21}-\x{84}\x{86}-\x{9F}\x{A1}-\x{167F}\x{1681}-\x{1FFF}\x{200B}-\x{2027})"
    R"(\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{10FFFF})";

constexpr std::string_view general_categories[] = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P",  "Pc", "Pd",
    "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z", "Zs", "Zl", "Zp", "Cc", "Cf", "Co"};

constexpr int max_group_depth = 100;

/// The inside of a class that matches the characters of a general category, such as "L" or "Lu".
std::string category_class(std::string_view name) {
  std::string inside = fmt::format("\\p{{{}}}", name);
  for (const Range& range : added_since_unicode_14) {
    if (std::string_view(range.category).starts_with(name)) {
      inside += fmt::format("\\x{{{:X}}}-\\x{{{:X}}}", range.first, range.last);
    }
  }
  return inside;
}

/// Oniguruma's \w: letters, marks, decimal digits and connectors, and in Latin-1 all that is numeric.
std::string word_class() {
  return "\\p{Alphabetic}" + category_class("L") + category_class("M") + category_class("Nd") +
         category_class("Pc") + R"(\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
}

/// One pass over an Oniguruma pattern, by recursive descent:
///   alternatives = sequence { "|" sequence };  sequence = { atom [ quantifier ] };  atom = group | class |
///   ...
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : pattern_(pattern), where_(where) {}

  std::string translate() {
    if (const auto bad = find_invalid_utf8(pattern_)) {
      throw InputError("{}: the pattern is not valid UTF-8 at byte {}", where_, *bad);
    }
    std::string out = alternatives(/*caseless=*/false, /*depth=*/0);
    if (!at_end()) refuse("a closing parenthesis without an opening one", at_, 1);
    return out;
  }

 private:
  bool at_end() const { return at_ == pattern_.size(); }
  bool next_is(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  bool take(std::string_view text) {
    if (!next_is(text)) return false;
    at_ += text.size();
    return true;
  }
  char32_t take_code_point() {
    const CodePoint c = first_code_point(pattern_.substr(at_));
    at_ += c.size;
    return c.value;
  }

  [[noreturn]] void refuse(std::string_view what, std::size_t at, std::size_t length) const {
    throw InputError("{}: {} ({} at byte {} of the pattern) is not served", where_, what,
                     quote(pattern_.substr(at, length)), at);
  }

  std::string alternatives(bool caseless, int depth) {
    if (depth > max_group_depth) refuse(fmt::format("more than {} nested groups", max_group_depth), at_, 1);
    std::string out;
    previous_literal_ = 0;
    while (!at_end() && !next_is(")")) {
      if (take("|")) {
        out += '|';
        previous_literal_ = 0;
      } else {
        out += quantified_atom(caseless, depth);
      }
    }
    return out;
  }

  /// What a quantifier repeats, in PCRE2's syntax.
  struct Atom {
    enum class Kind { character, group, assertion };
    std::string text;
    Kind kind;
  };

  std::string quantified_atom(bool caseless, int depth) {
    const std::size_t begin = at_;
    const Atom one = atom(caseless, depth);
    const std::size_t end = at_;
    const std::optional<std::string> repeated = quantify(one);
    if (!repeated) return one.text;
    previous_literal_ = 0;
    if (one.kind == Atom::Kind::assertion) refuse("a repeated assertion", begin, at_ - begin);
    const std::size_t quantifier_end = at_;
    if (quantify(one)) refuse("a quantifier behind a quantifier", end, at_ - end);
    at_ = quantifier_end;
    return *repeated;
  }

  /// `one` with the quantifier that stands here, if one does.
  std::optional<std::string> quantify(const Atom& one) {
    const std::size_t begin = at_;
    if (at_end()) return std::nullopt;
    std::string quantifier;
    bool is_interval = false;
    if (next_is("?") || next_is("*") || next_is("+")) {
      quantifier = pattern_[at_++];
    } else if (take("{")) {
      const auto low = number();
      const bool ranged = take(",");
      const auto high = ranged ? number() : low;
      if ((!low && !high) || !take("}")) {  // Oniguruma takes the brace for itself then
        at_ = begin;
        return std::nullopt;
      }
      if (high && low && *high < *low) refuse("an interval that descends", begin, at_ - begin);
      if (!ranged && next_is("?")) refuse("a lazy interval of one number", begin, at_ + 1 - begin);
      quantifier = fmt::format("{{{},{}}}", low.value_or(0), high ? fmt::to_string(*high) : "");
      is_interval = true;
    } else {
      return std::nullopt;
    }
    if (take("?")) return one.text + quantifier + '?';
    if (!take("+")) return one.text + quantifier;
    // In Oniguruma a plus makes ?, * and + possessive, but repeats an interval.
    if (is_interval) return fmt::format("(?:{}{})+", one.text, quantifier);
    // PCRE2 10.42's compiled code goes back into some groups that are atomic: (?>a+|ab)- matches "aab-".
    if (one.kind == Atom::Kind::group) refuse("a possessive group", begin, at_ - begin);
    return one.text + quantifier + '+';
  }

  std::optional<unsigned> number() {
    const std::size_t begin = at_;
    unsigned value = 0;
    while (!at_end() && pattern_[at_] >= '0' && pattern_[at_] <= '9') {
      value = value * 10 + static_cast<unsigned>(pattern_[at_++] - '0');
      if (value > 65535) refuse("an interval above 65535", begin, at_ - begin);
    }
    return at_ == begin ? std::nullopt : std::optional(value);
  }

  Atom atom(bool caseless, int depth) {
    const std::size_t begin = at_;
    if (take("(")) return group(begin, caseless, depth);
    if (take("[")) return {character_class(begin, caseless), Atom::Kind::character};
    if (take("\\")) {
      if (const auto inside = class_escape(begin, caseless)) {
        previous_literal_ = 0;
        return {'[' + *inside + ']', Atom::Kind::character};
      }
      return {literal(escaped_code_point(begin), begin, caseless), Atom::Kind::character};
    }
    if (take(".")) {
      previous_literal_ = 0;
      return {R"([^\n])", Atom::Kind::character};
    }
    for (const char c : {'^', '$'}) {
      if (pattern_[at_] == c) refuse("the anchor", begin, 1);
    }
    for (const char c : {'?', '*', '+'}) {
      if (pattern_[at_] == c) refuse("a quantifier with nothing before it", begin, 1);
    }
    return {literal(take_code_point(), begin, caseless), Atom::Kind::character};
  }

  Atom group(std::size_t begin, bool caseless, int depth) {
    std::string open = "(?:";
    bool inner_caseless = caseless;
    Atom::Kind kind = Atom::Kind::group;
    if (take("?")) {
      constexpr std::string_view assertions[] = {"=", "!", "<=", "<!"};
      const auto assertion =
          std::find_if(std::begin(assertions), std::end(assertions), [&](auto text) { return take(text); });
      if (assertion != std::end(assertions)) {
        open = fmt::format("(?{}", *assertion);
        kind = Atom::Kind::assertion;
      } else if (take("i:")) {
        open = "(?i:";
        inner_caseless = true;
      } else if (take("-i:")) {
        open = "(?-i:";
        inner_caseless = false;
      } else if (!take(":")) {
        refuse("the group", begin, 4);
      }
    } else if (next_is("*")) {
      refuse("the call", begin, 4);
    }
    const std::string inside = alternatives(inner_caseless, depth + 1);
    if (!take(")")) throw InputError("{}: the group at byte {} of the pattern is not closed", where_, begin);
    previous_literal_ = 0;
    return {open + inside + ')', kind};
  }

  std::string literal(char32_t c, std::size_t begin, bool caseless) {
    if (caseless) {
      // Oniguruma folds these to, or from, more than one character (U+00DF matches (?i:ss)); PCRE2 does not.
      constexpr std::string_view folded[] = {"ss", "st", "ff", "fi", "fl"};
      const auto lower = [](char32_t x) { return x >= 'A' && x <= 'Z' ? x + 32 : x; };
      if (c >= 0x80) refuse("a caseless match of a character that is not ASCII", begin, at_ - begin);
      for (const std::string_view pair : folded) {
        if (lower(previous_literal_) == static_cast<char32_t>(pair[0]) &&
            lower(c) == static_cast<char32_t>(pair[1])) {
          refuse("a caseless match of letters that have a ligature", begin - 1, at_ + 1 - begin);
        }
      }
      previous_literal_ = c;
    }
    return fmt::format("\\x{{{:X}}}", static_cast<std::uint32_t>(c));
  }

  /// The inside of a class for \s, \p{...} and so on, behind their backslash; nothing for an escaped
  /// character.
  std::optional<std::string> class_escape(std::size_t begin, bool caseless) {
    if (take("s")) return std::string(white_space);
    if (take("S")) return std::string(not_white_space);
    if (take("d")) return category_class("Nd");
    if (take("w")) return word_class();
    if (take("D")) return '^' + category_class("Nd");
    if (take("W")) return '^' + word_class();
    const bool negated = next_is("P");
    if (!take("p") && !take("P")) return std::nullopt;
    const std::size_t close = pattern_.find('}', at_);
    if (!next_is("{") || close == std::string_view::npos) refuse("the escape", begin, 3);
    const std::string_view name = pattern_.substr(at_ + 1, close - at_ - 1);
    at_ = close + 1;
    if (std::find(std::begin(general_categories), std::end(general_categories), name) ==
        std::end(general_categories)) {
      refuse("the character property", begin, at_ - begin);
    }
    if (caseless) refuse("a caseless match of a character property", begin, at_ - begin);
    return (negated ? "^" : "") + category_class(name);
  }

  /// An escape that stands for one character, behind its backslash.
  char32_t escaped_code_point(std::size_t begin) {
    if (at_end()) throw InputError("{}: the pattern ends in a backslash", where_);
    constexpr std::pair<char, char32_t> controls[] = {{'t', 0x09}, {'n', 0x0A}, {'v', 0x0B}, {'f', 0x0C},
                                                      {'r', 0x0D}, {'a', 0x07}, {'e', 0x1B}};
    for (const auto& [name, value] : controls) {
      if (pattern_[at_] == name) {
        ++at_;
        return value;
      }
    }
    if (take("x{")) {
      const char32_t value = hexadecimal(begin, 1, 6);
      if (!take("}")) refuse("the escape", begin, at_ - begin);
      return value;
    }
    if (take("x")) {
      const char32_t value = hexadecimal(begin, 2, 2);
      if (value >= 0x80) refuse("a byte that is not ASCII", begin, at_ - begin);
      return value;
    }
    if (take("u")) return hexadecimal(begin, 4, 4);
    const char32_t c = take_code_point();
    const bool is_alphanumeric = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (is_alphanumeric) refuse("the escape", begin, at_ - begin);
    return c;
  }

  char32_t hexadecimal(std::size_t begin, int min_digits, int max_digits) {
    char32_t value = 0;
    int digits = 0;
    for (; digits < max_digits && !at_end(); ++digits, ++at_) {
      const char c = pattern_[at_];
      if (c >= '0' && c <= '9') {
        value = value * 16 + static_cast<char32_t>(c - '0');
      } else if (c >= 'a' && c <= 'f') {
        value = value * 16 + static_cast<char32_t>(c - 'a' + 10);
      } else if (c >= 'A' && c <= 'F') {
        value = value * 16 + static_cast<char32_t>(c - 'A' + 10);
      } else {
        break;
      }
    }
    if (digits < min_digits || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      refuse("the escape", begin, at_ - begin);
    }
    return value;
  }

  std::string character_class(std::size_t begin, bool caseless) {
    previous_literal_ = 0;
    std::string out = take("^") ? "[^" : "[";
    if (next_is("]")) refuse("an empty character class", begin, at_ + 1 - begin);
    while (!take("]")) {
      const std::size_t item = at_;
      if (at_end()) throw InputError("{}: the class at byte {} of the pattern is not closed", where_, begin);
      if (next_is("[")) refuse("a class inside a class", item, 2);
      if (next_is("&&")) refuse("an intersection of classes", item, 2);
      if (take("\\")) {
        if (const auto inside = class_escape(item, caseless)) {
          if (inside->starts_with('^')) refuse("a negated set inside a class", item, at_ - item);
          if (next_is("-") && !next_is("-]")) refuse("a range from a set", item, at_ + 2 - item);
          out += *inside;
          continue;
        }
        at_ = item;
      }
      const char32_t first = class_member(caseless);
      out += fmt::format("\\x{{{:X}}}", static_cast<std::uint32_t>(first));
      if (!next_is("-") || next_is("-]")) continue;
      ++at_;
      if (at_end() || next_is("[")) refuse("the range", item, at_ - item);
      const char32_t last = class_member(caseless);
      if (last < first) refuse("a range that descends", item, at_ - item);
      out += fmt::format("-\\x{{{:X}}}", static_cast<std::uint32_t>(last));
    }
    return out + ']';
  }

  char32_t class_member(bool caseless) {
    const std::size_t begin = at_;
    const char32_t c = take("\\") ? escaped_code_point(begin) : take_code_point();
    if (caseless && c >= 0x80) {
      refuse("a caseless match of a character that is not ASCII", begin, at_ - begin);
    }
    return c;
  }

  std::string_view pattern_;
  const std::string& where_;
  std::size_t at_ = 0;
  char32_t previous_literal_ = 0;  ///< the caseless literal just before, 0 = none
};

}  // namespace

std::string translate_pattern(std::string_view oniguruma, const std::string& where) {
  return Translator(oniguruma, where).translate();
}

}  // namespace mezzo
