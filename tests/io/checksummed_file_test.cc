// A pair of file and checksum appears whole, verified, or not at all.
#include "mezzo/io/checksummed_file.h"

#include <gtest/gtest.h>

#include "mezzo/core/error.h"
#include "mezzo/io/files.h"
#include "scratch.h"

namespace mezzo {
namespace {

using test::message_of;
using test::names_in;
using test::read_all;
using test::ScratchFolder;

std::size_t count_files(const std::string& folder) { return names_in(folder).size(); }

TEST(ChecksummedFile, AppearsWithItsChecksumOnceItIsVerified) {
  const ScratchFolder folder;
  const std::string path = folder / "a.bin";
  ChecksummedFile file(path);
  std::ofstream(file.temporary_path()) << "abc";
  bool read_back = false;
  file.commit([&] {
    read_back = read_all(file.temporary_path()) == "abc";
    EXPECT_FALSE(file_exists(path) || file_exists(sha256_sidecar_path(path)));
  });
  EXPECT_TRUE(read_back);
  EXPECT_EQ(read_all(path), "abc");
  EXPECT_EQ(read_all(path + ".sha256"),  // sha256sum's line
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a.bin\n");
  EXPECT_NO_THROW(verify_sha256_sidecar(path));
  EXPECT_EQ(count_files(folder.path()), 2u);
}

TEST(ChecksummedFile, LeavesNothingWhenItIsNotCommittedOrNotVerified) {
  const ScratchFolder folder;
  { const ChecksummedFile file(folder / "a.bin"); }
  EXPECT_EQ(count_files(folder.path()), 0u);
  {
    ChecksummedFile file(folder / "b.bin");
    EXPECT_THROW(file.commit([] { throw IoError("what was read back is not what was written"); }), IoError);
  }
  EXPECT_EQ(count_files(folder.path()), 0u);
}

TEST(ChecksummedFile, DamageIsFound) {
  const ScratchFolder folder;
  const std::string path = folder / "a.bin";
  {
    ChecksummedFile file(path);
    file.commit([] {});
  }
  folder.write("a.bin", "x");
  EXPECT_NE(message_of<InputError>([&] { verify_sha256_sidecar(path); }).find("the file is damaged"),
            std::string::npos);
}

}  // namespace
}  // namespace mezzo
