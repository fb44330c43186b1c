#include "mezzo/data/byte_level.h"

#include <array>
#include <cstddef>
#include <cstdint>

#include "mezzo/core/utf8.h"
#include "mezzo/data/unicode.h"

namespace mezzo {
namespace {

constexpr std::int16_t no_byte = -1;

/// The character of each byte.
constexpr std::array<char32_t, 256> character_of = [] {
  std::array<char32_t, 256> table{};
  char32_t shifted = 0x100;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    table[byte] = printable ? static_cast<char32_t>(byte) : shifted++;
  }
  return table;
}();

/// The byte of each character below U+0144, the first one above the alphabet.
constexpr std::array<std::int16_t, 0x144> byte_of = [] {
  std::array<std::int16_t, 0x144> table{};
  table.fill(no_byte);
  for (std::size_t byte = 0; byte < 256; ++byte) table[character_of[byte]] = static_cast<std::int16_t>(byte);
  return table;
}();

}  // namespace

std::optional<std::string> byte_level_bytes(std::string_view token) {
  std::string bytes;
  while (!token.empty()) {
    const CodePoint c = first_code_point(token);
    if (c.value >= byte_of.size() || byte_of[c.value] == no_byte) return std::nullopt;
    bytes += static_cast<char>(byte_of[c.value]);
    token.remove_prefix(c.size);
  }
  return bytes;
}

std::string byte_level_text(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) append_utf8(text, character_of[static_cast<unsigned char>(byte)]);
  return text;
}

}  // namespace mezzo
