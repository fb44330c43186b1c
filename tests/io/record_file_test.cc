#include "mezzo/io/record_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "file_size_limit.h"
#include "killed_child.h"
#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

using test::message_of;
using test::read_all;
using test::ScratchFolder;

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Record `number` of a test file: its length and bytes depend on its number.
std::string payload(std::uint64_t number) {
  constexpr std::size_t lengths[] = {33, 0, 1, 257, 31, 300};
  std::string text(lengths[number % std::size(lengths)], '\0');
  std::mt19937 random(static_cast<unsigned>(number));
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

/// Puts `content` in a file's place. A file that is cut to nothing and written again would be flushed at once
/// by some file systems (ext4's auto_da_alloc); a new one is not.
void replace(const std::string& path, const std::string& content) {
  remove_file(path);
  std::ofstream(path, std::ios::binary) << content;
}

struct Content {
  std::string header;
  std::vector<std::string> records;
  RecordEnd end;
};

Content read(const std::string& path) {
  RecordReader reader(path);
  Content content{.header = text_of(reader.header()), .records = {}, .end = {}};
  while (const auto record = reader.next()) content.records.push_back(text_of(*record));
  content.end = reader.end();
  EXPECT_EQ(content.end.records, content.records.size());
  EXPECT_EQ(content.end.valid_bytes, reader.position());
  EXPECT_EQ(content.end.valid_bytes + content.end.discarded_bytes, file_size(path));
  EXPECT_EQ(content.end.kind == RecordEnd::Kind::clean, content.end.discarded_bytes == 0);
  EXPECT_EQ(content.end.kind == RecordEnd::Kind::clean, content.end.reason.empty());
  return content;
}

void expect_prefix(const std::vector<std::string>& records) {
  for (std::size_t i = 0; i < records.size(); ++i) ASSERT_EQ(records[i], payload(i)) << "record " << i;
}

/// A file of `count` records; also returns where each of them ends, the header first.
std::vector<std::uint64_t> write_records(const std::string& path, std::uint64_t count,
                                         const std::string& header = "{\"seed\": 42}") {
  RecordWriter writer = RecordWriter::create(path, bytes_of(header));
  std::vector<std::uint64_t> ends{writer.bytes()};
  for (std::uint64_t i = 0; i < count; ++i) {
    writer.append(bytes_of(payload(i)));
    ends.push_back(writer.bytes());
  }
  writer.sync();
  return ends;
}

TEST(Crc32c, KnownAnswers) {
  // RFC 3720, appendix B.4, and the usual check value.
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xe3069283u);
  EXPECT_EQ(crc32c(bytes_of(std::string(32, '\0'))), 0x8a9136aau);
  EXPECT_EQ(crc32c(bytes_of(std::string(32, '\xff'))), 0x62a8ab43u);
  std::string ascending(32, '\0');
  std::iota(ascending.begin(), ascending.end(), '\0');
  EXPECT_EQ(crc32c(bytes_of(ascending)), 0x46dd794eu);
  EXPECT_EQ(crc32c({}), 0u);
}

TEST(Crc32c, ContinuesAtEverySplit) {
  const std::string text = payload(5);
  for (std::size_t split = 0; split <= text.size(); ++split)
    ASSERT_EQ(crc32c(bytes_of(text.substr(split)), crc32c(bytes_of(text.substr(0, split)))),
              crc32c(bytes_of(text)));
}

TEST(RecordFile, HoldsExactlyTheDocumentedBytes) {
  const ScratchFolder folder;
  RecordWriter writer = RecordWriter::create(folder / "t", bytes_of("{}"));
  writer.append(bytes_of("abc"));
  const std::string found = read_all(folder / "t");
  // Computed from docs/file-formats.md by a bitwise CRC-32C in Python.
  const std::string expected(
      "MEZZOTRJ\x01\x00\x00\x00\x02\x00\x00\x00{}\xd6\xff\xde\x47"
      "\x03\x00\x00\x00"
      "abc"
      "\xe2\xb7\xf3\xe7",
      33);
  EXPECT_EQ(found, expected);
}

TEST(RecordFile, RoundTrip) {
  const ScratchFolder folder;
  write_records(folder / "t", 100);
  const Content content = read(folder / "t");
  EXPECT_EQ(content.header, "{\"seed\": 42}");
  EXPECT_EQ(content.records.size(), 100u);
  expect_prefix(content.records);
  EXPECT_EQ(content.end.kind, RecordEnd::Kind::clean);
}

TEST(RecordFile, RecordsLongerThanTheReadAheadWindow) {
  const ScratchFolder folder;
  std::vector<std::string> records;
  for (const std::size_t size :
       {std::size_t{1}, std::size_t{(1 << 20) - 8}, std::size_t{1 << 20}, std::size_t{5 << 20},
        std::size_t{3}, std::size_t{700'000}, std::size_t{700'000}})
    records.push_back(std::string(size, static_cast<char>('a' + records.size())));
  RecordWriter writer = RecordWriter::create(folder / "t", {});
  for (const std::string& record : records) writer.append(bytes_of(record));
  EXPECT_EQ(read(folder / "t").records, records);
}

TEST(RecordFile, CreateNeverReplacesAFile) {
  const ScratchFolder folder;
  const std::string path = folder.write("t", "precious");
  EXPECT_EQ(message_of<IoError>([&] { RecordWriter::create(path, {}); }),
            path + ": cannot create: the file exists");
  EXPECT_EQ(read_all(path), "precious");
}

TEST(RecordFile, CutAtEveryByteLeavesTheWholeRecordsBefore) {
  const ScratchFolder folder;
  const std::string path = folder / "t";
  const std::vector<std::uint64_t> ends = write_records(path, 5);
  const std::string whole = read_all(path);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const std::string cut = whole.substr(0, size);
    replace(path, cut);
    if (size < ends[0]) {
      ASSERT_THROW(RecordReader reader(path), InputError) << size;
      continue;
    }
    const Content content = read(path);
    const auto after = std::upper_bound(ends.begin(), ends.end(), size);
    ASSERT_EQ(content.records.size(), static_cast<std::size_t>(after - ends.begin()) - 1) << size;
    ASSERT_EQ(content.end.valid_bytes, *(after - 1));
    ASSERT_EQ(content.end.kind, size == *(after - 1) ? RecordEnd::Kind::clean : RecordEnd::Kind::torn);
    expect_prefix(content.records);
    ASSERT_EQ(read_all(path), cut) << "reading changed the file";

    if (size % 8 != 0) continue;                         // an fsync each
    RecordWriter writer(path, content.end.valid_bytes);  // what is appended behind the cut is found again
    writer.append(bytes_of(payload(content.records.size())));
    const Content longer = read(path);
    ASSERT_EQ(longer.records.size(), content.records.size() + 1);
    ASSERT_EQ(longer.end.kind, RecordEnd::Kind::clean);
    expect_prefix(longer.records);
  }
}

TEST(RecordFile, NoFlippedBitPassesAndMiddleIsToldFromTail) {
  const ScratchFolder folder;
  const std::string path = folder / "t";
  const std::vector<std::uint64_t> ends = write_records(path, 5);
  const std::string whole = read_all(path);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      replace(path, damaged);
      if (at < ends[0]) {
        ASSERT_THROW(RecordReader reader(path), InputError) << at;
        continue;
      }
      const Content content = read(path);
      const std::size_t hit =
          static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), at) - ends.begin()) - 1;
      ASSERT_EQ(content.records.size(), hit) << "byte " << at << " bit " << bit;
      expect_prefix(content.records);
      ASSERT_EQ(content.end.kind, hit + 1 < 5 ? RecordEnd::Kind::corrupt : RecordEnd::Kind::torn)
          << content.end.reason;
    }
  }
}

TEST(RecordFile, SaysWhatItLeaves) {
  const ScratchFolder folder;
  const std::string path = folder / "t";
  const std::vector<std::uint64_t> ends = write_records(path, 3);
  const std::string whole = read_all(path);
  folder.write("t", whole.substr(0, whole.size() - 2));
  EXPECT_EQ(read(path).end.reason,
            fmt::format("{}: record 2 at offset {} is incomplete: 7 bytes do not count", path, ends[2]));
  std::string damaged = whole;
  damaged[ends[0] + 10] ^= 1;
  replace(path, damaged);
  EXPECT_EQ(
      read(path).end.reason,
      fmt::format(
          "{}: record 0 at offset {} is damaged although good records follow it (at offset {}): {} bytes "
          "do not count",
          path, ends[0], ends[1], whole.size() - ends[0]));
}

TEST(RecordFile, ATailOfZerosHoldsNoRecords) {
  // What some file systems leave after a power cut: the length is on disk, the data is not.
  const ScratchFolder folder;
  const std::string path = folder / "t";
  const std::vector<std::uint64_t> ends = write_records(path, 3);
  folder.write("t", read_all(path) + std::string(1 << 20, '\0'));
  const Content content = read(path);
  EXPECT_EQ(content.records.size(), 3u);
  EXPECT_EQ(content.end.kind, RecordEnd::Kind::torn);
}

TEST(RecordFile, ARecordOfAnotherPlaceOrAnotherRunDoesNotPass) {
  const ScratchFolder folder;
  const std::string path = folder / "t";
  const auto make = [&](const std::string& header) {
    remove_file(path);
    RecordWriter writer = RecordWriter::create(path, bytes_of(header));
    for (const char* text : {"one", "two", "six"}) writer.append(bytes_of(text));
    return read_all(path);
  };
  const std::string other = make("run B");
  const std::string whole = make("run A");
  constexpr std::size_t header = 8 + 4 + 4 + 5 + 4;
  constexpr std::size_t record = 4 + 3 + 4;
  ASSERT_EQ(whole.size(), header + 3 * record);
  const auto part = [&](const std::string& from, int i) { return from.substr(header + i * record, record); };
  const std::string start = whole.substr(0, header);

  folder.write("t", start + part(whole, 1) + part(whole, 0) + part(whole, 2));  // exchanged
  EXPECT_EQ(read(path).records, std::vector<std::string>{});
  folder.write("t", start + part(whole, 0) + part(whole, 2));  // one left out
  EXPECT_EQ(read(path).records, std::vector<std::string>{"one"});
  folder.write("t", start + part(whole, 0) + part(whole, 0));  // one twice
  EXPECT_EQ(read(path).records, std::vector<std::string>{"one"});
  folder.write("t", start + part(whole, 0) + part(other, 1) + part(whole, 2));  // one of another run
  EXPECT_EQ(read(path).records, std::vector<std::string>{"one"});
}

TEST(RecordFile, RandomBytesAreNeverRecords) {
  const ScratchFolder folder;
  const std::string path = folder / "t";
  write_records(path, 1);
  const std::string whole = read_all(path);
  std::mt19937_64 random(3);
  for (int round = 0; round < 20; ++round) {
    std::string noise(20'000, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    // Every other round with small lengths everywhere, so that each offset could begin a record.
    if (round % 2 == 1) {
      for (std::size_t i = 0; i + 4 <= noise.size(); i += 2) noise[i + 1] = 0;
    }
    replace(path, whole + noise);
    const Content content = read(path);
    ASSERT_EQ(content.records.size(), 1u);
    ASSERT_EQ(content.end.kind, RecordEnd::Kind::torn);
    replace(path, noise);
    ASSERT_THROW(RecordReader reader(path), InputError);
  }
}

TEST(RecordFile, HugeLengthsAreRefusedBeforeMemoryIsTaken) {
  const ScratchFolder folder;
  const std::string path = folder / "t";
  write_records(path, 1);
  std::string whole = read_all(path);
  EXPECT_EQ(message_of<InputError>([&] {
              std::string damaged = whole;
              damaged.replace(12, 4, "\xff\xff\xff\xff");
              RecordReader reader(folder.write("u", damaged));
            }),
            (folder / "u") + ": the header claims 4294967295 bytes; at most 67108864 are expected");
  folder.write("t", whole + std::string("\xff\xff\xff\xff", 4) + std::string(100, 'x'));
  EXPECT_EQ(read(path).end.kind, RecordEnd::Kind::torn);
  RecordWriter writer(path, whole.size());
  EXPECT_THROW(writer.append(std::vector<std::byte>(max_record_bytes + 1)), IoError);
  writer.append(bytes_of(payload(1)));  // a refused argument does no harm
  EXPECT_EQ(read(path).records.size(), 2u);
}

TEST(RecordFile, OtherVersionsAndOtherFilesAreNamed) {
  const ScratchFolder folder;
  write_records(folder / "t", 1);
  std::string whole = read_all(folder / "t");
  whole[8] = 2;
  const std::string path = folder.write("u", whole);
  EXPECT_EQ(message_of<InputError>([&] { RecordReader reader(path); }),
            path + ": the format's version is 2; this program reads version 1");
  const std::string text = folder.write("v", "a text that is no record file");
  EXPECT_EQ(message_of<InputError>([&] { RecordReader reader(text); }),
            text + ": not a record file: it does not begin with MEZZOTRJ");
  EXPECT_THROW(RecordReader reader(folder.path()), InputError);
  EXPECT_THROW(RecordReader reader(folder / "none"), IoError);
}

TEST(RecordFile, WriterRefusesPlacesOutsideTheFile) {
  const ScratchFolder folder;
  const std::string path = folder / "t";
  const std::vector<std::uint64_t> ends = write_records(path, 2);
  EXPECT_THROW(RecordWriter(path, ends[0] - 1), IoError);
  EXPECT_THROW(RecordWriter(path, ends[2] + 1), IoError);
  RecordWriter(path, ends[1]);
  EXPECT_EQ(read(path).records.size(), 1u);
}

TEST(RecordFile, ReaderKeepsToWhatWasThereWhenItOpened) {
  const ScratchFolder folder;
  const std::string path = folder / "t";
  const std::vector<std::uint64_t> ends = write_records(path, 2);
  RecordReader reader(path);
  EXPECT_THROW(reader.end(), Error);
  RecordWriter writer(path, ends[2]);
  writer.append(bytes_of(payload(2)));
  EXPECT_TRUE(reader.next());
  EXPECT_EQ(reader.position(), ends[1]);
  EXPECT_TRUE(reader.next());
  EXPECT_FALSE(reader.next());
  EXPECT_EQ(reader.end().kind, RecordEnd::Kind::clean);
}

TEST(RecordFile, NothingIsAppendedAfterAFailedWrite) {
  const ScratchFolder folder;
  const std::string path = folder / "t";
  const std::vector<std::uint64_t> ends = write_records(path, 2);
  RecordWriter writer(path, ends[2]);
  {
    const test::FileSizeLimit limit(ends[2] + 20);  // inside the next record
    EXPECT_THROW(writer.append(bytes_of(payload(3))), IoError);
  }
  EXPECT_EQ(message_of<IoError>([&] { writer.append(bytes_of("x")); }),
            path + ": cannot append after an earlier write failed");
  EXPECT_THROW(writer.sync(), IoError);
  const Content content = read(path);
  EXPECT_EQ(content.records.size(), 2u);
  EXPECT_EQ(content.end.kind, RecordEnd::Kind::torn);
  EXPECT_EQ(content.end.discarded_bytes, 20u);
}

// ---- the writer thread --------------------------------------------------------------------------------

TEST(AsyncRecordWriter, WritesEverythingInOrder) {
  const ScratchFolder folder;
  for (const std::size_t queue : {1, 2, 1000}) {
    const std::string path = folder / fmt::format("t{}", queue);
    AsyncRecordWriter writer(RecordWriter::create(path, {}), 1, queue);
    for (std::uint64_t i = 0; i < 200; ++i) writer.append(bytes_of(payload(i)));
    EXPECT_EQ(writer.appended(), 200u);
    writer.flush();
    EXPECT_EQ(writer.committed(), 200u);
    const Content content = read(path);
    EXPECT_EQ(content.records.size(), 200u);
    expect_prefix(content.records);
    writer.flush();  // nothing to do is no reason to wait
    writer.close();
    writer.close();
    EXPECT_EQ(writer.committed(), 200u);
    EXPECT_THROW(writer.append(bytes_of("x")), IoError);
  }
}

/// Waits until `condition` holds; false when that takes suspiciously long.
template <typename Condition>
bool comes_true(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

/// Of a file that is still being written: its size may change between two looks.
std::size_t records_so_far(const std::string& path) {
  RecordReader reader(path);
  std::size_t records = 0;
  while (reader.next()) ++records;
  return records;
}

TEST(AsyncRecordWriter, SyncsByCount) {
  const ScratchFolder folder;
  AsyncRecordWriter writer(RecordWriter::create(folder / "t", {}), 100);
  for (std::uint64_t i = 0; i < 5; ++i) writer.append(bytes_of(payload(i)));
  EXPECT_TRUE(comes_true([&] { return records_so_far(folder / "t") == 5; }));  // written, but not promised
  EXPECT_EQ(writer.committed(), 0u);
  writer.flush();
  EXPECT_EQ(writer.committed(), 5u);
  for (std::uint64_t i = 5; i < 250; ++i) writer.append(bytes_of(payload(i)));
  EXPECT_TRUE(comes_true([&] { return writer.committed() > 150; }));  // never are 100 left open
}

TEST(AsyncRecordWriter, DestructorLosesNothing) {
  const ScratchFolder folder;
  {
    AsyncRecordWriter writer(RecordWriter::create(folder / "t", {}), 1000);
    for (std::uint64_t i = 0; i < 50; ++i) writer.append(bytes_of(payload(i)));
  }
  EXPECT_EQ(read(folder / "t").records.size(), 50u);
  AsyncRecordWriter idle(RecordWriter::create(folder / "u", {}));
}

TEST(AsyncRecordWriter, AnErrorReachesTheCallerAndStays) {
  const ScratchFolder folder;
  const std::string path = folder / "t";
  AsyncRecordWriter writer(RecordWriter::create(path, {}), 1, 2);
  {
    const test::FileSizeLimit limit(1000);
    // The queue is shorter than this: append() has to throw, not to wait for a thread that has ended.
    EXPECT_THROW(
        {
          for (std::uint64_t i = 0; i < 1000; ++i) writer.append(bytes_of(payload(i)));
        },
        IoError);
  }
  EXPECT_NE(message_of<IoError>([&] { writer.append(bytes_of("x")); }).find("cannot write"),
            std::string::npos);
  EXPECT_THROW(writer.committed(), IoError);
  EXPECT_THROW(writer.flush(), IoError);
  EXPECT_THROW(writer.close(), IoError);
  const Content content = read(path);
  expect_prefix(content.records);
  EXPECT_GT(content.records.size(), 0u);
  EXPECT_EQ(content.end.valid_bytes + content.end.discarded_bytes, 1000u);
}

TEST(AsyncRecordWriter, KilledRunsGoOnWhereTheDiskStopped) {
  const ScratchFolder folder;
  const std::string path = folder / "t";
  write_records(path, 0);
  std::mt19937 random(4);
  test::SharedCounter committed;
  for (int round = 0; round < 40; ++round) {
    const RecordEnd before = read(path).end;
    const std::uint64_t sync_every = round % 3 == 0 ? 7 : 1;
    ASSERT_TRUE(test::run_and_kill(std::chrono::microseconds(random() % 4000), [&] {
      AsyncRecordWriter writer(RecordWriter(path, before.valid_bytes), sync_every, 16);
      for (std::uint64_t i = before.records;; ++i) {
        writer.append(bytes_of(payload(i)));
        committed.set(before.records + writer.committed());
      }
    }));
    const Content content = read(path);
    expect_prefix(content.records);
    EXPECT_GE(content.records.size(), committed.get()) << "a committed record is missing";
    EXPECT_NE(content.end.kind, RecordEnd::Kind::corrupt) << content.end.reason;
    committed.set(0);
  }
  EXPECT_GT(read(path).records.size(), 40u);
}

}  // namespace
}  // namespace mezzo
