#include "mezzo/data/byte_level.h"

#include <array>
#include <cstddef>
#include <cstdint>

#include "mezzo/core/utf8.h"

namespace mezzo {
namespace {

constexpr std::int16_t no_byte = -1;

/// The byte of each character below U+0144, the first one above the alphabet.
constexpr std::array<std::int16_t, 0x144> byte_of = [] {
  std::array<std::int16_t, 0x144> table{};
  table.fill(no_byte);
  std::size_t shifted = 0x100;
  for (std::int16_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    table[printable ? static_cast<std::size_t>(byte) : shifted++] = byte;
  }
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

}  // namespace mezzo
