#pragma once
// UTF-8 as the Unicode standard defines it (version 15, section 3.9, table 3-7): no overlong forms, no
// surrogates, nothing above U+10FFFF.
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace mezzo {

/// A character of a valid UTF-8 text and the number of bytes that it takes there.
struct CodePoint {
  char32_t value;
  std::size_t size;
};

/// Bytes of the well-formed sequence that `text` starts with; 0 where there is none (an empty text, a broken
/// sequence, one that is cut short).
std::size_t utf8_length(std::string_view text);

/// Whether a byte can only stand behind the first one of a sequence.
inline bool continues_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0u) == 0x80u; }

/// Offset of the first byte at which `text` stops being UTF-8 (the first byte of the sequence that is broken
/// or cut short), or nothing when all of it is.
std::optional<std::size_t> find_invalid_utf8(std::string_view text);

/// The text with U+FFFD for each byte that is not part of a well-formed sequence.
std::string valid_utf8(std::string_view text);

/// The first and the last character of a valid text that is not empty.
CodePoint first_code_point(std::string_view text);
CodePoint last_code_point(std::string_view text);

/// The text with the letters A to Z in lower case, and all else as it is.
std::string ascii_lower(std::string_view text);

/// Unicode's White_Space property, which has not changed since version 6.3.
bool is_white_space(char32_t c);

}  // namespace mezzo
