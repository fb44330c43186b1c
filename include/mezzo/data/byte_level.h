#pragma once
// GPT-2's byte-level alphabet: vocabularies write each byte as one printable character (Radford et al. 2019,
// bytes_to_unicode in the released code). Printable Latin-1 bytes are themselves, and the other 68, in order,
// are U+0100 and up: a space is U+0120.
#include <optional>
#include <string>
#include <string_view>

namespace mezzo {

/// The bytes that a vocabulary's `token` (valid UTF-8) stands for, or nothing when it holds a character that
/// is not in the alphabet.
std::optional<std::string> byte_level_bytes(std::string_view token);

/// The other way: the characters that stand for `bytes`.
std::string byte_level_text(std::string_view bytes);

}  // namespace mezzo
