#include "mezzo/io/line_reader.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

using test::message_of;
using test::ScratchFolder;

std::vector<std::string> lines_of(const std::string& path) {
  LineReader reader(path);
  std::vector<std::string> lines;
  for (std::string line; reader.next(line);) {
    lines.push_back(line);
    EXPECT_EQ(reader.number(), lines.size());
  }
  return lines;
}

TEST(LineReader, GivesLinesWithoutTheirLineFeed) {
  const ScratchFolder folder;
  using Lines = std::vector<std::string>;
  EXPECT_EQ(lines_of(folder.write("f", "")), Lines{});
  EXPECT_EQ(lines_of(folder.write("f", "\n")), Lines{""});
  EXPECT_EQ(lines_of(folder.write("f", "a\n\nb\r\nc")), (Lines{"a", "", "b\r", "c"}));
  EXPECT_EQ(lines_of(folder.write("f", std::string("a\0b\n", 4))), (Lines{std::string("a\0b", 3)}));
  // Longer than what is read at once, and ending with it.
  const std::string block(std::size_t{1} << 20, 'x');
  EXPECT_EQ(lines_of(folder.write("f", block + "y\n" + block.substr(3) + "\nz")),
            (Lines{block + "y", block.substr(3), "z"}));
}

TEST(LineReader, TellsALineThatWasNotFinished) {
  const ScratchFolder folder;
  LineReader reader(folder.write("f", "a\nb"));
  std::string line;
  ASSERT_TRUE(reader.next(line));
  EXPECT_TRUE(reader.is_whole());
  ASSERT_TRUE(reader.next(line));
  EXPECT_FALSE(reader.is_whole());
  EXPECT_EQ(line, "b");
  EXPECT_FALSE(reader.next(line));
  EXPECT_EQ(reader.number(), 2u);
}

TEST(LineReader, WantsARegularFile) {
  const ScratchFolder folder;
  const std::string fifo = folder / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(message_of<InputError>([&] { LineReader reader(fifo); }),
            fifo + ": a regular file is expected, found a FIFO or pipe");
  EXPECT_EQ(message_of<InputError>([&] { LineReader reader("/dev/zero"); }),
            "/dev/zero: a regular file is expected, found a device");
  EXPECT_EQ(message_of<InputError>([&] { LineReader reader(folder.path()); }),
            folder.path() + ": a regular file is expected, found a directory");
}

}  // namespace
}  // namespace mezzo
