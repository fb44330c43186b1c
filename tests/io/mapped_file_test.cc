#include "mezzo/io/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <numeric>

#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

using test::message_of;
using test::ScratchFolder;

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

std::size_t page() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

/// This process's resident file-backed memory, in KiB.
long resident_file_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssFile:")) return std::stol(line.substr(8));
  return -1;
}

TEST(MappedFile, ShowsTheFile) {
  const ScratchFolder folder;
  const std::string content = std::string(5000, 'x') + "end";
  const MappedFile file(folder.write("f", content));
  EXPECT_EQ(text_of(file), content);
  EXPECT_EQ(file.path(), folder / "f");
  EXPECT_TRUE(MappedFile(folder.write("empty", "")).bytes().empty());
}

TEST(MappedFile, MovesWithoutMoving) {
  const ScratchFolder folder;
  MappedFile a(folder.write("a", "aaa"));
  const std::byte* const data = a.bytes().data();
  MappedFile b(std::move(a));
  EXPECT_EQ(b.bytes().data(), data);
  MappedFile c(folder.write("c", "c"));
  c = std::move(b);
  EXPECT_EQ(c.bytes().data(), data);
  EXPECT_EQ(text_of(c), "aaa");
  EXPECT_EQ(c.path(), folder / "a");
}

TEST(MappedFile, RefusesWhatIsNoFile) {
  const ScratchFolder folder;
  EXPECT_EQ(message_of<IoError>([&] { MappedFile{folder / "none"}; }),
            folder / "none: cannot open: No such file or directory");
  EXPECT_EQ(message_of<InputError>([&] { MappedFile{folder.path()}; }),
            folder.path() + ": a regular file is expected, found a directory");
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  EXPECT_THROW(MappedFile{folder / "fifo"}, InputError);  // and does not wait for a writer
}

TEST(MappedFile, ReleasedPagesLeaveTheResidentSetAndStayReadable) {
  const ScratchFolder folder;
  const MappedFile file(folder.write("f", std::string(std::size_t{16} << 20, 'x')));
  const auto touch = [&] {
    return std::accumulate(text_of(file).begin(), text_of(file).end(), std::size_t{0});
  };
  const std::size_t sum = touch();
  const long before = resident_file_kib();
  file.release(file.bytes().subspan(1, file.bytes().size() - 2));
  EXPECT_LE(resident_file_kib(), before - (15 << 10));
  EXPECT_EQ(touch(), sum);
  file.prefetch(file.bytes().subspan(page() + 7, 5 * page()));
  file.release({});
}

TEST(MappedFile, AdvisesOnlyOnItsOwnBytes) {
  const ScratchFolder folder;
  const MappedFile file(folder.write("f", "abc"));
  const std::byte other{};
  EXPECT_THROW(file.release({&other, 1}), Error);
  EXPECT_THROW(file.prefetch({file.bytes().data(), 4}), Error);
}

}  // namespace
}  // namespace mezzo
