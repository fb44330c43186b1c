#pragma once
// Texts as 64-bit words, little end first, the last one filled with zeros.
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace mezzo {

inline std::size_t words_of(std::size_t bytes) { return (bytes + 7) / 8; }

/// `words` must have room for words_of(text.size()).
inline void put_text(const std::string& text, std::span<std::uint64_t> words) {
  if (!text.empty()) std::memcpy(words.data(), text.data(), text.size());
}

inline std::string get_text(std::span<const std::uint64_t> words, std::size_t bytes) {
  if (bytes == 0) return {};
  return {reinterpret_cast<const char*>(words.data()), bytes};
}

}  // namespace mezzo
