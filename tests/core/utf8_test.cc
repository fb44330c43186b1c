#include "mezzo/core/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace mezzo {
namespace {

/// By the definition (RFC 3629), for any value of up to 21 bits, surrogates included.
std::string encoded(char32_t c, std::size_t size) {
  if (size == 1) return {static_cast<char>(c)};
  std::string text(size, '\0');
  for (std::size_t i = size - 1; i > 0; --i, c >>= 6) text[i] = static_cast<char>(0x80 | (c & 0x3F));
  constexpr unsigned marks[] = {0, 0, 0xC0, 0xE0, 0xF0};
  text[0] = static_cast<char>(marks[size] | c);
  return text;
}

std::size_t size_of(char32_t c) { return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4; }

TEST(Utf8, EveryCharacterIsReadBack) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    const bool is_surrogate = c >= 0xD800 && c < 0xE000;
    const std::string text = encoded(c, size_of(c)) + "x";
    ASSERT_EQ(utf8_length(text), is_surrogate ? 0 : size_of(c)) << static_cast<std::uint32_t>(c);
    ASSERT_EQ(find_invalid_utf8(text).has_value(), is_surrogate);
    if (is_surrogate) continue;
    ASSERT_EQ(first_code_point(text).value, c);
    ASSERT_EQ(first_code_point(text).size, size_of(c));
    ASSERT_EQ(last_code_point("x" + encoded(c, size_of(c))).value, c);
  }
}

TEST(Utf8, WhatIsNotWellFormedHasNoLength) {
  for (const std::string text : {"", "\x80", "\xBF", "\xC3", "\xC3(", "\xFF", "\xF5\x80\x80\x80", "\xE2\x82",
                                 "\xE2(\xA1", "\xF0\x9F\x98"}) {
    EXPECT_EQ(utf8_length(text), 0u) << text;
  }
  for (char32_t c = 0; c <= 0x10FFFF; c += 13) {
    for (std::size_t size = size_of(c) + 1; size <= 4; ++size) {
      ASSERT_EQ(utf8_length(encoded(c, size)), 0u) << "overlong " << static_cast<std::uint32_t>(c);
    }
  }
  EXPECT_EQ(utf8_length(encoded(0x110000, 4)), 0u);
}

TEST(Utf8, BrokenBytesAreReplaced) {
  EXPECT_EQ(valid_utf8(""), "");
  EXPECT_EQ(valid_utf8("a\xC3\xA9"), "a\xC3\xA9");
  EXPECT_EQ(valid_utf8("\xE6\x9D"), "\xEF\xBF\xBD\xEF\xBF\xBD");  // cut short
  EXPECT_EQ(valid_utf8("a\xFF"
                       "b"),
            "a\xEF\xBF\xBD"
            "b");
}

TEST(Utf8, TheFirstBrokenByteIsFound) {
  const std::string ascii(21, 'a');
  for (std::size_t at = 0; at <= ascii.size(); ++at) {
    std::string text = ascii;
    text.insert(at, "\xE2\x82");
    EXPECT_EQ(find_invalid_utf8(text), at);
    text.insert(at + 2, "\xAC");
    EXPECT_EQ(find_invalid_utf8(text), std::nullopt);
  }
}

}  // namespace
}  // namespace mezzo
