#include "mezzo/core/printable.h"

#include <gtest/gtest.h>

namespace mezzo {
namespace {

TEST(Printable, WhatATerminalShowsStaysAsItIs) {
  for (const char* text :
       {"", "a.yaml:1: wrong", "a\tb", "C:\\n", "größe 漢字 🙂 é e\u0301", "\u00a0\u200b"})
    EXPECT_EQ(printable(text), text);
}

TEST(Printable, WhatATerminalObeysIsEscaped) {
  EXPECT_EQ(printable("a\nb"), "a\\nb");
  EXPECT_EQ(printable("\x1b[2J\r\x7f\b"), "\\x1b[2J\\x0d\\x7f\\x08");
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable("\u009b31m\u0085"), "\\u009b31m\\u0085");  // C1: CSI, next line
  EXPECT_EQ(printable("\u202egnp.exe\u2066\u2069\u061c\u200f"), "\\u202egnp.exe\\u2066\\u2069\\u061c\\u200f");
  EXPECT_EQ(printable("a\u2028b\u2029"), "a\\u2028b\\u2029");
  EXPECT_EQ(printable("\U000e0041"), "\\ue0041");
}

TEST(Printable, BytesThatAreNoUtf8AreNamed) {
  EXPECT_EQ(printable("a\x9b"
                      "b"),
            "a\\x9bb");                                     // a raw C1 byte
  EXPECT_EQ(printable("\xe2\x80"), "\\xe2\\x80");           // cut short
  EXPECT_EQ(printable("\xc0\x8a"), "\\xc0\\x8a");           // an overlong line feed
  EXPECT_EQ(printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // a surrogate
}

TEST(Printable, LinesStayLines) {
  EXPECT_EQ(printable_lines("a\x1b\nb\n"), "a\\x1b\nb\n");
  EXPECT_EQ(printable_lines("\u202e"), "\\u202e");
}

}  // namespace
}  // namespace mezzo
