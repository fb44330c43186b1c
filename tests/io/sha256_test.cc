#include "mezzo/io/sha256.h"

#include <gtest/gtest.h>

#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/io/files.h"
#include "scratch.h"

namespace mezzo {
namespace {

using test::message_of;
using test::ScratchFolder;

std::string bytes(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 2654435761u >> 13);
  return text;
}

TEST(Sha256, KnownAnswers) {  // FIPS 180-2, appendix B, and the empty message
  EXPECT_EQ(sha256_of({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_of(bytes_of("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_of(bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_of(bytes_of(std::string(1'000'000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesMakeTheWhole) {
  const std::string text = bytes(257);
  for (const std::size_t cut : {0u, 1u, 31u, 64u, 257u}) {
    Sha256 hash;
    hash.update(bytes_of(text).first(cut));
    hash.update(bytes_of(text).subspan(cut));
    EXPECT_EQ(hash.hex(), sha256_of(bytes_of(text)));
  }
}

TEST(Sha256, OfAFile) {
  const ScratchFolder folder;
  for (const std::size_t size : {std::size_t{0}, std::size_t{33}, (std::size_t{3} << 20) + 1}) {
    const std::string text = bytes(size);
    EXPECT_EQ(sha256_of_file(folder.write("f", text)), sha256_of(bytes_of(text)));
  }
  EXPECT_THROW(sha256_of_file(folder / "none"), IoError);
  EXPECT_THROW(sha256_of_file(folder.path()), InputError);
}

/// hash_files() as its documentation has it, in one go.
std::string by_definition(const std::vector<std::string>& contents) {
  Sha256 total;
  for (const std::string& content : contents) {
    const std::uint64_t size = content.size();
    total.update(std::as_bytes(std::span(&size, 1)));
    for (std::size_t at = 0; at < size; at += hash_chunk_bytes) {
      Sha256 chunk;
      chunk.update(bytes_of(std::string_view(content).substr(at, hash_chunk_bytes)));
      total.update(chunk.finish());
    }
  }
  return total.hex();
}

TEST(HashFiles, IsTheDocumentedHashForAnyNumberOfThreads) {
  const ScratchFolder folder;
  const std::vector<std::string> contents = {bytes(31), "", bytes(2 * hash_chunk_bytes + 257),
                                             bytes(hash_chunk_bytes)};
  std::vector<std::string> paths;
  for (const std::string& content : contents)
    paths.push_back(folder.write(std::to_string(paths.size()), content));
  const std::string expected = by_definition(contents);
  for (const int threads : {1, 2, 7}) EXPECT_EQ(hash_files(paths, threads), expected);
  EXPECT_EQ(hash_files({}, 2), sha256_of({}));
}

TEST(HashFiles, SeesContentOrderAndBoundaries) {
  const ScratchFolder folder;
  const auto hash = [&](const std::vector<std::string>& contents) {
    std::vector<std::string> paths;
    for (const std::string& content : contents)
      paths.push_back(folder.write(std::to_string(paths.size()), content));
    return hash_files(paths, 2);
  };
  const std::string one = hash({"ab", "c"});
  EXPECT_NE(one, hash({"ab", "d"}));
  EXPECT_NE(one, hash({"c", "ab"}));
  EXPECT_NE(one, hash({"a", "bc"}));
  EXPECT_NE(one, hash({"ab", "c", ""}));
}

TEST(HashFiles, AMissingFileIsNamed) {
  const ScratchFolder folder;
  const std::vector<std::string> paths = {folder.write("a", "a"), folder / "none"};
  EXPECT_TRUE(message_of<IoError>([&] { hash_files(paths, 2); }).starts_with(folder / "none: "));
}

}  // namespace
}  // namespace mezzo
