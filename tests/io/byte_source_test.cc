#include "mezzo/io/byte_source.h"

#include <gtest/gtest.h>

#include "compressed.h"
#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

using test::gzip;
using test::zstd;

std::string all_of(const std::string& path) {
  return read_rest(*open_decompressed(path), std::size_t{1} << 24);
}

/// Of several blocks and hardly compressible, so that blocks end anywhere.
std::string long_text() {
  std::string text;
  for (std::uint32_t x = 1, i = 0; i < 300'000; ++i) {
    x = x * 1664525u + 1013904223u;
    text += static_cast<char>(x >> 24);
  }
  return text + std::string(3'000'000, 'a');
}

TEST(ByteSource, DecompressesByTheMagicWhateverTheName) {
  const test::ScratchFolder folder;
  const std::string text = long_text();
  for (const std::string& content : {text, std::string("a\n"), std::string()}) {
    EXPECT_EQ(all_of(folder.write("plain.gz", content)), content);
    EXPECT_EQ(all_of(folder.write("a.jsonl", gzip(content))), content);
    EXPECT_EQ(all_of(folder.write("b", zstd(content))), content);
  }
  EXPECT_EQ(all_of(folder.write("members", gzip("one\n") + gzip(text) + gzip("three"))),
            "one\n" + text + "three");
  EXPECT_EQ(all_of(folder.write("frames", zstd("one\n") + zstd(text) + zstd("three"))),
            "one\n" + text + "three");
  EXPECT_EQ(read_rest(*open_source(folder.write("as_it_is", gzip("x"))), 100), gzip("x"));
}

TEST(ByteSource, ATornFileIsNoShorterOne) {
  const test::ScratchFolder folder;
  const std::string text = "one line\nanother line\n" + std::string(5000, 'x') + "\n";
  for (const auto& [format, whole] : {std::pair("gzip", gzip(text)), std::pair("zstd", zstd(text))}) {
    for (std::size_t size = 5; size < whole.size(); ++size) {
      const std::string path = folder.write("torn", whole.substr(0, size));
      EXPECT_EQ(test::message_of<InputError>([&] { all_of(path); }),
                path + ": the " + format + " data end too early: the file is torn or not yet whole")
          << size;
    }
  }
}

TEST(ByteSource, DamageIsAnError) {
  const test::ScratchFolder folder;
  const std::string path = folder / "damaged";
  const std::string text(5000, 'x');
  std::string damaged = gzip(text);
  damaged[damaged.size() - 6] ^= 1;  // of the sum
  folder.write("damaged", damaged);
  EXPECT_NE(test::message_of<InputError>([&] { all_of(path); }).find("the gzip data are damaged: "),
            std::string::npos);
  folder.write("damaged", gzip("x") + "behind it");
  EXPECT_NE(test::message_of<InputError>([&] { all_of(path); }).find("the gzip data are damaged: "),
            std::string::npos);
  damaged = zstd(text);
  damaged[6] ^= 0x7f;
  folder.write("damaged", damaged);
  EXPECT_NE(test::message_of<InputError>([&] { all_of(path); }).find("the zstd data are damaged: "),
            std::string::npos);
}

TEST(ByteSource, WhatIsReadWholeHasALimit) {
  const test::ScratchFolder folder;
  const std::string bomb = folder.write("bomb.gz", gzip(std::string(8'000'000, '\0')));
  EXPECT_EQ(test::message_of<InputError>([&] { read_rest(*open_decompressed(bomb), 1'000'000); }),
            bomb + ": has more than 1000000 bytes");
}

}  // namespace
}  // namespace mezzo
