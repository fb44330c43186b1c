#pragma once
// Byte fallback: tokens <0x00> ... <0xFF> stand for the bytes of characters that have no token.
#include <optional>
#include <string>
#include <string_view>

namespace mezzo {

/// "<0xE2>" for 0xE2.
std::string fallback_token(unsigned char byte);

/// The byte that a token stands for, if it has that form.
std::optional<unsigned char> byte_of_fallback(std::string_view token);

}  // namespace mezzo
