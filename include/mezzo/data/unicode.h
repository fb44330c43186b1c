#pragma once
// What normalizers ask Unicode for: normal forms (Unicode Standard Annex 15), lower case, kinds of
// characters, grapheme clusters (Annex 29). utf8proc's tables; texts are valid UTF-8.
#include <cstddef>
#include <string>
#include <string_view>

namespace mezzo {

/// The name and version of the library, such as "utf8proc 2.8.0".
std::string unicode_library();

enum class NormalForm { nfc, nfd, nfkc, nfkd };

/// The text in a normal form, in O(n log n) for any run of combining marks.
std::string normal_form(std::string_view text, NormalForm form);

/// Each character's full lower case by itself: a final sigma is a sigma like others.
std::string lower_case(std::string_view text);

bool is_mark(char32_t c);             ///< general category M
bool is_nonspacing_mark(char32_t c);  ///< Mn
bool is_punctuation(char32_t c);      ///< P
bool is_alphanumeric(char32_t c);     ///< L or N
bool is_control_like(char32_t c);     ///< Cc, Cf, Co, Cs: categories of "other" but for unassigned

/// Bytes of the extended grapheme cluster that `text` (not empty) starts with.
std::size_t first_grapheme(std::string_view text);

void append_utf8(std::string& text, char32_t c);

}  // namespace mezzo
