#include "mezzo/data/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"

namespace mezzo {
namespace {

constexpr int longest_decomposition = 32;  // of one character; Unicode's is 18

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

/// Marks behind a letter in the order of their classes. The library's own loop takes quadratic time for that.
void sort_marks(std::vector<utf8proc_int32_t>& characters) {
  const auto is_starter = [](utf8proc_int32_t c) { return combining_class(c) == 0; };
  for (auto at = characters.begin(); at != characters.end();) {
    const auto begin = std::find_if_not(at, characters.end(), is_starter);
    at = std::find_if(begin, characters.end(), is_starter);
    std::stable_sort(begin, at, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
  }
}

}  // namespace

std::string unicode_library() { return fmt::format("utf8proc {}", utf8proc_version()); }

std::string normal_form(std::string_view text, NormalForm form) {
  if (is_ascii(text)) return std::string(text);
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  const bool composed = form == NormalForm::nfc || form == NormalForm::nfkc;
  const auto decompose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                        (compatible ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> characters;
  characters.reserve(text.size());
  int boundary_class = 0;
  while (!text.empty()) {
    const CodePoint c = first_code_point(text);
    utf8proc_int32_t parts[longest_decomposition];
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.value), parts,
                                               longest_decomposition, decompose, &boundary_class);
    if (count < 0 || count > longest_decomposition) {
      throw InputError("utf8proc does not decompose the character U+{:04X}", static_cast<unsigned>(c.value));
    }
    characters.insert(characters.end(), parts, parts + count);
    text.remove_prefix(c.size);
  }
  sort_marks(characters);
  if (composed) {
    const auto count =
        utf8proc_normalize_utf32(characters.data(), static_cast<utf8proc_ssize_t>(characters.size()),
                                 static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    characters.resize(static_cast<std::size_t>(count));
  }
  std::string normal;
  for (const utf8proc_int32_t c : characters) append_utf8(normal, static_cast<char32_t>(c));
  return normal;
}

std::string lower_case(std::string_view text) {
  std::string lower;
  while (!text.empty()) {
    const CodePoint c = first_code_point(text);
    // The one character whose lower case is two (Unicode's SpecialCasing.txt) without a condition.
    if (c.value == U'\u0130') {
      lower += "i\u0307";
    } else {
      append_utf8(lower, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.value))));
    }
    text.remove_prefix(c.size);
  }
  return lower;
}

bool is_nonspacing_mark(char32_t c) { return category(c) == UTF8PROC_CATEGORY_MN; }

bool is_mark(char32_t c) {
  const utf8proc_category_t kind = category(c);
  return kind >= UTF8PROC_CATEGORY_MN && kind <= UTF8PROC_CATEGORY_ME;
}

bool is_punctuation(char32_t c) {
  const utf8proc_category_t kind = category(c);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO;
}

bool is_alphanumeric(char32_t c) {
  const utf8proc_category_t kind = category(c);
  return (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) ||
         (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO);
}

bool is_control_like(char32_t c) {
  const utf8proc_category_t kind = category(c);
  return kind >= UTF8PROC_CATEGORY_CC && kind <= UTF8PROC_CATEGORY_CO;
}

std::size_t first_grapheme(std::string_view text) {
  CodePoint last = first_code_point(text);
  std::size_t size = last.size;
  utf8proc_int32_t state = 0;
  while (size < text.size()) {
    const CodePoint next = first_code_point(text.substr(size));
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(last.value),
                                         static_cast<utf8proc_int32_t>(next.value), &state)) {
      break;
    }
    size += next.size;
    last = next;
  }
  return size;
}

void append_utf8(std::string& text, char32_t c) {
  const auto put = [&](char32_t byte) { text += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 63));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 63)), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
  }
}

}  // namespace mezzo
