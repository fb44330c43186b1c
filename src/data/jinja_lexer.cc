#include "jinja_lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

#include "jinja_value.h"
#include "mezzo/core/utf8.h"
#include "mezzo/data/unicode.h"

namespace mezzo::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

class Lexer {
 public:
  explicit Lexer(std::string_view source) {
    for (std::size_t i = 0; i < source.size(); ++i) {  // every line ends with a line feed alone
      const bool is_return = source[i] == '\r';
      source_ += is_return ? '\n' : source[i];
      if (is_return && i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
    if (source_.ends_with('\n')) source_.pop_back();
  }

  std::vector<Token> run() {
    while (position_ < source_.size()) read_data();
    add(Token::Kind::end);
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(std::string message) const { throw SourceProblem{line_, std::move(message)}; }

  bool at(std::string_view text) const { return source_.compare(position_, text.size(), text) == 0; }

  void advance(std::size_t count) {
    const auto begin = source_.begin() + static_cast<std::ptrdiff_t>(position_);
    line_ += static_cast<std::size_t>(std::count(begin, begin + static_cast<std::ptrdiff_t>(count), '\n'));
    position_ += count;
    if (count > 0) at_line_start_ = source_[position_ - 1] == '\n';
  }

  Token& add(Token::Kind kind, std::string text = {}) {
    tokens_.push_back({.kind = kind, .text = std::move(text), .line = line_});
    return tokens_.back();
  }

  /// The text up to the next tag, and that tag.
  void read_data() {
    std::size_t begin = position_;
    const auto is_tag = [&](std::size_t i) {
      return source_[i] == '{' && i + 1 < source_.size() && std::strchr("{%#", source_[i + 1]) != nullptr;
    };
    while (begin < source_.size() && !is_tag(begin)) ++begin;
    std::string_view data = std::string_view(source_).substr(position_, begin - position_);
    if (begin == source_.size()) {
      if (!data.empty()) add(Token::Kind::data, std::string(data));
      return advance(begin - position_);
    }
    const char kind = source_[begin + 1];
    const char sign = begin + 2 < source_.size() ? source_[begin + 2] : '\0';
    if (sign == '-') {
      data = strip(data, nullptr, false, true);
    } else if (sign != '+' && kind != '{') {
      const std::size_t line_begin = data.rfind('\n') + 1;  // npos + 1 is 0
      if ((line_begin > 0 || at_line_start_) && strip(data.substr(line_begin), nullptr, true, false).empty())
        data = data.substr(0, line_begin);
    }
    if (!data.empty()) add(Token::Kind::data, std::string(data));
    advance(begin - position_ + 2 + (sign == '-' || sign == '+' ? 1 : 0));
    if (kind == '#') return read_comment();
    add(kind == '{' ? Token::Kind::variable_begin : Token::Kind::block_begin);
    const std::size_t first = tokens_.size();
    read_tag(kind == '{' ? "}}" : "%}", kind == '%');
    if (kind == '%' && tokens_[first].text == "raw" && tokens_[first].kind == Token::Kind::name)
      throw SourceProblem{tokens_[first].line, "the statement raw is not served"};
  }

  /// What is swallowed behind a tag that ends with `-` (white space) or without (one line feed).
  void skip_behind(bool all) {
    if (!all) {
      if (position_ < source_.size() && source_[position_] == '\n') advance(1);
      return;
    }
    const std::string_view rest = std::string_view(source_).substr(position_);
    advance(rest.size() - strip(rest, nullptr, true, false).size());
  }

  void read_comment() {
    const std::size_t end = source_.find("#}", position_);
    if (end == std::string::npos) fail("a comment without its end, #}");
    const char sign = end > position_ ? source_[end - 1] : '\0';
    advance(end + 2 - position_);
    if (sign != '+') skip_behind(sign == '-');
  }

  bool read_tag_end(std::string_view closing, bool is_block) {
    const bool has_sign = position_ < source_.size() &&
                          (source_[position_] == '-' || (is_block && source_[position_] == '+')) &&
                          source_.compare(position_ + 1, 2, closing) == 0;
    if (!has_sign && !at(closing)) return false;
    const char sign = has_sign ? source_[position_] : '\0';
    add(is_block ? Token::Kind::block_end : Token::Kind::variable_end);
    advance(closing.size() + (has_sign ? 1 : 0));
    if (sign == '-' || (is_block && sign != '+')) skip_behind(sign == '-');
    return true;
  }

  void read_tag(std::string_view closing, bool is_block) {
    std::string open;  // brackets
    for (;;) {
      if (position_ >= source_.size()) fail(fmt::format("a tag without its end, {}", closing));
      if (open.empty() && read_tag_end(closing, is_block)) return;
      const char c = source_[position_];
      std::size_t size = 0;
      if (starts_with_space(std::string_view(source_).substr(position_), size)) {
        advance(size);
      } else if (is_letter(c)) {
        read_name();
      } else if (is_digit(c)) {
        read_number();
      } else if (c == '\'' || c == '"') {
        read_text(c);
      } else {
        read_operator(open);
      }
    }
  }

  void read_name() {
    std::size_t end = position_;
    while (end < source_.size() && (is_letter(source_[end]) || is_digit(source_[end]))) ++end;
    add(Token::Kind::name, source_.substr(position_, end - position_));
    advance(end - position_);
  }

  void read_number() {
    std::size_t end = position_;
    const auto digits = [&] {
      while (end < source_.size() && is_digit(source_[end])) ++end;
    };
    digits();
    bool is_whole = true;
    if (end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1])) {
      is_whole = false;
      ++end;
      digits();
    }
    if (end < source_.size() && (is_letter(source_[end])))
      fail("a number in another form than 12 or 1.5 is not served");
    const char* const first = source_.data() + position_;
    const char* const last = source_.data() + end;
    Token& token = add(is_whole ? Token::Kind::whole : Token::Kind::number);
    const auto result =
        is_whole ? std::from_chars(first, last, token.whole) : std::from_chars(first, last, token.number);
    if (result.ec != std::errc()) fail("a number that is too large");
    if (is_whole && *first == '0' && std::any_of(first, last, [](char digit) { return digit != '0'; }))
      fail("a whole number that begins with 0");
    advance(end - position_);
  }

  /// The value of `count` hexadecimal digits from `begin`, if they are there.
  std::optional<std::uint32_t> hexadecimal(std::size_t begin, std::size_t count) const {
    if (begin + count > source_.size()) return std::nullopt;
    std::uint32_t value = 0;
    const char* const first = source_.data() + begin;
    const auto [end, error] = std::from_chars(first, first + count, value, 16);
    if (error != std::errc() || end != first + count) return std::nullopt;
    return value;
  }

  void read_text(char quote) {
    Token token{.kind = Token::Kind::text, .text = {}, .line = line_};
    std::size_t i = position_ + 1;
    for (;;) {
      if (i >= source_.size()) fail(fmt::format("a text without its end, {}", quote));
      const char c = source_[i++];
      if (c == quote) break;
      if (c != '\\') {
        token.text += c;
        continue;
      }
      if (i >= source_.size()) continue;
      const char escaped = source_[i++];
      constexpr std::string_view plain = "\\'\"abfnrtv";
      constexpr std::string_view meaning = "\\'\"\a\b\f\n\r\t\v";
      const std::size_t known = plain.find(escaped);
      const std::size_t digits = escaped == 'x' ? 2 : escaped == 'u' ? 4 : escaped == 'U' ? 8 : 0;
      if (known != std::string_view::npos) {
        token.text += meaning[known];
      } else if (escaped == '\n') {  // a line that goes on
      } else if (digits > 0) {
        const auto point = hexadecimal(i, digits);
        if (!point || *point > 0x10FFFF || (*point >= 0xD800 && *point < 0xE000))
          fail(fmt::format("\\{} without {} hexadecimal digits of a character behind it", escaped, digits));
        append_utf8(token.text, *point);
        i += digits;
      } else if (is_digit(escaped) || escaped == 'N') {
        fail(fmt::format("the escape \\{} in a text is not served", escaped));
      } else {
        token.text += c;
        --i;  // the backslash stands for itself
        if (static_cast<unsigned char>(escaped) < 0x80) token.text += source_[i++];
      }
    }
    tokens_.push_back(std::move(token));
    advance(i - position_);
  }

  void read_operator(std::string& open) {
    std::string_view found;
    for (const std::string_view candidate :
         {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
          "]",  "(",  ")",  "{",  "}",  "<",  ">", "=", ".", ":", "|", ",", ";"}) {
      if (!at(candidate)) continue;
      found = candidate;
      break;
    }
    if (found.empty()) {
      const std::size_t size = utf8_length(std::string_view(source_).substr(position_));
      fail(fmt::format("the character {} at this place", source_.substr(position_, size)));
    }
    constexpr std::string_view opening = "([{";
    constexpr std::string_view closing = ")]}";
    if (opening.find(found[0]) != std::string_view::npos) open += found[0];
    if (const std::size_t kind = closing.find(found[0]); kind != std::string_view::npos) {
      if (open.empty() || open.back() != opening[kind]) fail(fmt::format("a {} without its partner", found));
      open.pop_back();
    }
    add(Token::Kind::op, std::string(found));
    advance(found.size());
  }

  std::string source_;
  std::size_t position_ = 0;
  std::size_t line_ = 1;
  bool at_line_start_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokens_of(std::string_view source) { return Lexer(source).run(); }

}  // namespace mezzo::jinja
