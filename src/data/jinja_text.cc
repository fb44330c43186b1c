#include "jinja_text.h"

#include <fmt/format.h>

#include "jinja_call.h"
#include "mezzo/core/utf8.h"

namespace mezzo::jinja {

std::string change_case(std::string_view callee, std::string text, Case to) {
  bool in_word = false;
  for (char& c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) not_served(fmt::format("{} of a text beyond ASCII", callee));
    const bool is_upper = c >= 'A' && c <= 'Z';
    const bool is_lower = c >= 'a' && c <= 'z';
    const bool up = to == Case::upper || ((to == Case::title || to == Case::capital) && !in_word);
    if (up && is_lower) c = static_cast<char>(c - 'a' + 'A');
    if (!up && is_upper) c = static_cast<char>(c - 'A' + 'a');
    in_word = to == Case::capital || is_upper || is_lower;
  }
  return text;
}

std::string replace_in(const std::string& text, const std::string& from, const std::string& to,
                       std::int64_t count, Budget& budget) {
  std::string out;
  const auto add = [&](std::string_view piece) {
    budget.charge_text(out.size() + piece.size());
    out += piece;
  };
  if (from.empty()) {  // between all characters
    for (const std::string_view character : characters_of(text)) {
      if (count-- != 0) add(to);
      else count = 0;
      add(character);
    }
    if (count != 0) add(to);
    return out;
  }
  std::size_t begin = 0;
  for (std::size_t found; count != 0 && (found = text.find(from, begin)) != std::string::npos; --count) {
    out.append(text, begin, found - begin);
    add(to);
    begin = found + from.size();
    budget.charge(1);
  }
  add(std::string_view(text).substr(begin));
  return out;
}

Sequence split_text(std::string_view text, const std::string* separator, std::int64_t limit, Budget& budget) {
  Sequence pieces;
  const auto add = [&](std::string_view piece) {
    budget.charge_text(piece.size());
    pieces.items.emplace_back(std::string(piece));
  };
  if (separator != nullptr) {
    if (separator->empty()) throw Problem("split: the separator is empty");
    for (std::size_t found; limit != 0 && (found = text.find(*separator)) != std::string_view::npos;
         --limit) {
      add(text.substr(0, found));
      text.remove_prefix(found + separator->size());
    }
    add(text);
    return pieces;
  }
  text = strip(text, nullptr, true, false);
  while (!text.empty()) {
    std::size_t end = 0;
    std::size_t size = 0;
    while (end < text.size() && !starts_with_space(text.substr(end), size)) end += size;
    if (limit-- == 0) {
      add(text);
      break;
    }
    add(text.substr(0, end));
    text = strip(text.substr(end), nullptr, true, false);
  }
  return pieces;
}

Sequence split_lines(std::string_view text, bool keep_ends, Budget& budget) {
  Sequence lines;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint point = first_code_point(text.substr(i));
    const char32_t c = point.value;
    const bool ends =
        (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    std::size_t next = i + point.size;
    if (ends) {
      if (c == 0x0D && text.substr(next).starts_with('\n')) ++next;
      budget.charge_text(next - begin);
      lines.items.emplace_back(std::string(text.substr(begin, (keep_ends ? next : i) - begin)));
      begin = next;
    }
    i = next;
  }
  if (begin < text.size()) lines.items.emplace_back(std::string(text.substr(begin)));
  return lines;
}

std::string join_texts(std::string_view callee, const std::string& separator, const std::vector<Value>& items,
                       bool convert, Budget& budget) {
  std::string out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::string piece = convert ? text_of(items[i], budget) : text_argument(callee, items[i]);
    budget.charge_text(out.size() + separator.size() + piece.size());
    if (i > 0) out += separator;
    out += piece;
  }
  return out;
}

}  // namespace mezzo::jinja
