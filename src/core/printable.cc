#include "mezzo/core/printable.h"

#include <fmt/format.h>

#include "mezzo/core/utf8.h"

namespace mezzo {
namespace {

/// Whether a terminal obeys a character where it should show it.
bool is_obeyed(char32_t c) {
  return (c < 0x20 && c != '\t') || (c >= 0x7F && c < 0xA0) ||            // C0, DEL, C1
         c == 0x061C || c == 0x200E || c == 0x200F ||                     // marks of direction
         (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) ||  // embeddings, overrides, isolates
         c == 0x2028 || c == 0x2029 ||                                    // separators of lines, paragraphs
         (c >= 0xFFF9 && c <= 0xFFFB) || (c >= 0xE0000 && c <= 0xE007F);  // annotations, tags
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::size_t size = utf8_length(text);
    if (size == 0) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text.front()));
      text.remove_prefix(1);
      continue;
    }
    const auto value = static_cast<std::uint32_t>(first_code_point(text).value);
    if (!is_obeyed(value)) out += text.substr(0, size);
    else if (value == '\n') out += "\\n";
    else if (value < 0x80) out += fmt::format("\\x{:02x}", value);
    else out += fmt::format("\\u{:04x}", value);
    text.remove_prefix(size);
  }
  return out;
}

std::string printable_lines(std::string_view text) {
  std::string out;
  for (;;) {
    const std::size_t end = text.find('\n');
    out += printable(text.substr(0, end));
    if (end == std::string_view::npos) return out;
    out += '\n';
    text.remove_prefix(end + 1);
  }
}

}  // namespace mezzo
