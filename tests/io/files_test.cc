#include "mezzo/io/files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "file_size_limit.h"
#include "killed_child.h"
#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

using test::message_of;
using test::names_in;
using test::read_all;
using test::ScratchFolder;

TEST(AtomicFile, AppearsOnlyWithCommit) {
  const ScratchFolder folder;
  {
    AtomicFile file(folder / "a");
    file.write("one ");
    file.write(bytes_of("two"));
    EXPECT_FALSE(file_exists(folder / "a"));
    EXPECT_EQ(names_in(folder.path()), std::vector{fmt::format(".a.tmp-{}", ::getpid())});
    file.commit();
    EXPECT_EQ(read_all(folder / "a"), "one two");
    EXPECT_THROW(file.write("x"), IoError);
    EXPECT_THROW(file.commit(), IoError);
  }
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"a"});
}

TEST(AtomicFile, LeavesNothingWithoutCommit) {
  const ScratchFolder folder;
  folder.write("a", "old");
  AtomicFile(folder / "a").write("new");
  EXPECT_EQ(read_all(folder / "a"), "old");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"a"});
}

TEST(AtomicFile, FullDiskKeepsTheOldFile) {
  const ScratchFolder folder;
  folder.write("a", "old");
  {
    const test::FileSizeLimit limit(1000);
    const std::string message =
        message_of<IoError>([&] { write_file_atomically(folder / "a", std::string(1001, 'x')); });
    EXPECT_NE(message.find("File too large"), std::string::npos) << message;
  }
  EXPECT_EQ(read_all(folder / "a"), "old");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"a"});
}

TEST(AtomicFile, RefusesFoldersThatAreMissingAndFolderNames) {
  const ScratchFolder folder;
  EXPECT_NE(message_of<IoError>([&] { AtomicFile(folder / "none/a"); }).find("none/.a.tmp-"),
            std::string::npos);
  EXPECT_THROW(AtomicFile(folder / "a/"), IoError);
}

TEST(AtomicFile, DoesNotFollowAPlantedLink) {
  const ScratchFolder folder;
  folder.write("victim", "precious");
  std::filesystem::create_symlink(folder / "victim", temporary_path_for(folder / "a"));
  EXPECT_THROW(AtomicFile(folder / "a"), IoError);
  EXPECT_EQ(read_all(folder / "victim"), "precious");
}

// A version's content says which it is, and its length depends on it: no mixture of two looks like one.
std::string version(std::uint64_t number) {
  return fmt::format("{}\n{}", number,
                     std::string(1 + number * 7919 % 20011, static_cast<char>('a' + number % 26)));
}

TEST(AtomicFile, KilledWriterLeavesOneWholeVersion) {
  const ScratchFolder folder;
  const std::string path = folder / "a";
  write_file_atomically(path, version(0));
  std::mt19937 random(1);
  test::SharedCounter committed;
  for (int round = 0; round < 40; ++round) {
    const std::uint64_t first = committed.get() + 1;
    ASSERT_TRUE(test::run_and_kill(std::chrono::microseconds(random() % 4000), [&] {
      for (std::uint64_t number = first;; ++number) {
        write_file_atomically(path, version(number));
        committed.set(number);
      }
    }));
    const std::string found = read_all(path);
    const std::uint64_t number = std::stoull(found);
    EXPECT_EQ(found, version(number));
    EXPECT_GE(number, committed.get());
    EXPECT_LE(number, committed.get() + 1);
    committed.set(number);
    EXPECT_LE(names_in(folder.path()).size(), 2u);
    EXPECT_LE(remove_temporary_files(folder.path()), 1u);
    EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"a"});
  }
}

TEST(Files, RemovesTemporariesOnly) {
  const ScratchFolder folder;
  for (const char* name :
       {".a.tmp-12", ".a.h5.tmp-1", ".a.tmp-", ".a.tmp-1x", "a.tmp-1", ".tmp-1", "a", ".lock"})
    folder.write(name, "x");
  std::filesystem::create_directory(folder / ".b.tmp-3");
  EXPECT_EQ(remove_temporary_files(folder.path()), 2u);
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{".a.tmp-", ".a.tmp-1x", ".b.tmp-3", ".lock",
                                                               ".tmp-1", "a", "a.tmp-1"}));
}

TEST(FolderLock, IsExclusiveAndNamesTheHolder) {
  const ScratchFolder folder;
  {
    const FolderLock lock(folder.path());
    const std::string message = message_of<IoError>([&] { FolderLock again(folder.path()); });
    EXPECT_EQ(message.rfind(folder.path() + ": the folder is in use by process ", 0), 0u) << message;
    EXPECT_NE(message.find(std::to_string(::getpid())), std::string::npos) << message;
  }
  const FolderLock again(folder.path());
}

TEST(FolderLock, AKilledHolderLeavesNone) {
  const ScratchFolder folder;
  test::SharedCounter held;
  ASSERT_TRUE(test::run_and_kill(std::chrono::milliseconds(50), [&] {
    const FolderLock lock(folder.path());
    held.set(1);
    ::pause();
  }));
  EXPECT_EQ(held.get(), 1u);
  const FolderLock lock(folder.path());
}

TEST(FolderLock, MissingFolderIsAnError) {
  const ScratchFolder folder;
  EXPECT_NE(message_of<IoError>([&] { FolderLock lock(folder / "none"); }).find("none/.lock"),
            std::string::npos);
}

TEST(Files, ReadsWholeFilesUpToALimit) {
  const ScratchFolder folder;
  const std::string path = folder.write("a", std::string("x\0y", 3));
  EXPECT_EQ(read_file(path, 3), std::string("x\0y", 3));
  EXPECT_EQ(message_of<InputError>([&] { read_file(path, 2); }),
            path + ": the file has 3 bytes; at most 2 are expected");
  EXPECT_EQ(read_file(folder.write("empty", ""), 0), "");
  EXPECT_EQ(file_size(path), 3u);
  EXPECT_EQ(message_of<IoError>([&] { read_file(folder / "none", 9); }),
            (folder / "none") + ": cannot open: No such file or directory");
}

TEST(Files, RefusesWhatIsNoRegularFileWithoutWaiting) {
  const ScratchFolder folder;
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  const std::pair<std::string, std::string> others[] = {
      {folder / "fifo", "a FIFO or pipe"}, {folder.path(), "a directory"}, {"/dev/null", "a device"}};
  for (const auto& [path, kind] : others) {
    const std::string expected = path + ": a regular file is expected, found " + kind;
    EXPECT_EQ(message_of<InputError>([&] { read_file(path, 9); }), expected);
    EXPECT_EQ(message_of<InputError>([&] { file_size(path); }), expected);
  }
}

TEST(Files, MakesFoldersWithTheirParents) {
  const ScratchFolder folder;
  create_directories(folder / "a/b/c/");
  create_directories(folder / "a/b/c");
  EXPECT_TRUE(std::filesystem::is_directory(folder / "a/b/c"));
  folder.write("file", "");
  EXPECT_THROW(create_directories(folder / "file"), IoError);
  EXPECT_THROW(create_directories(folder / "file/a"), IoError);
}

TEST(Files, RemoveAndExists) {
  const ScratchFolder folder;
  const std::string path = folder.write("a", "");
  EXPECT_TRUE(file_exists(path));
  EXPECT_TRUE(remove_file(path));
  EXPECT_FALSE(remove_file(path));
  EXPECT_FALSE(file_exists(path));
  EXPECT_FALSE(file_exists(folder.write("b", "") + "/c"));
  EXPECT_THROW(remove_file(folder.path()), IoError);
}

TEST(Files, ParentDirectory) {
  EXPECT_EQ(parent_directory("a"), ".");
  EXPECT_EQ(parent_directory("a/b"), "a");
  EXPECT_EQ(parent_directory("/a"), "/");
  EXPECT_EQ(parent_directory("/"), "/");
}

TEST(FileDescriptor, ReadsAtOffsetsAndTruncates) {
  const ScratchFolder folder;
  FileDescriptor file = FileDescriptor::open(folder.write("a", "0123456789"), O_RDWR);
  std::array<std::byte, 4> target{};
  EXPECT_EQ(file.read_at(8, target), 2u);
  EXPECT_EQ(static_cast<char>(target[1]), '9');
  EXPECT_EQ(file.read_at(20, target), 0u);
  file.truncate(3);
  EXPECT_EQ(file.size(), 3u);
  FileDescriptor other = std::move(file);
  EXPECT_FALSE(file);
  EXPECT_TRUE(other);
  other.close();
  EXPECT_FALSE(other);
}

}  // namespace
}  // namespace mezzo
