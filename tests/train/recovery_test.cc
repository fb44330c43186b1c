#include "mezzo/train/recovery.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/io/files.h"
#include "scratch.h"
#include "train/small_run.h"

namespace mezzo {
namespace {

using test::message_of;
using test::read_all;
using test::ScratchFolder;
using test::small_header;

constexpr std::uint64_t steps = 8;
constexpr std::uint64_t newest = 5;  // of the snapshots
constexpr std::size_t record_bytes = 4 + 28 + 4 * 2 + 4;

StepRecord record_of(std::uint64_t step) {
  return {
      .step = step, .learning_rate = 0.5f, .coefficients = {1.0f, -2.0f}, .loss = 0.7, .gradient_norm = 2.0};
}

RunState state_of(std::uint64_t step) { return test::small_state(small_header(), step); }

/// A run of eight steps with snapshots of steps 2 and 5.
class RecoveryTest : public ::testing::Test {
 protected:
  RecoveryTest() {
    create_directories(folder_.snapshots());
    begin_trajectory(folder_, small_header());
    RecordWriter writer(folder_.trajectory(), file_size(folder_.trajectory()));
    header_bytes_ = writer.bytes();
    for (std::uint64_t step = 0; step < steps; ++step) writer.append(encode(record_of(step)));
    for (const std::uint64_t step : {std::uint64_t{2}, newest})
      write_snapshot(folder_.snapshot(step), small_header(), state_of(step));
    whole_ = read_all(folder_.trajectory());
    EXPECT_EQ(whole_.size(), header_bytes_ + steps * record_bytes);
  }

  void flip(std::size_t at) {
    std::string damaged = whole_;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << at % 8));
    scratch_.write("trajectory", damaged);
  }
  RunContent examine() {
    return examine_run(folder_, [&](const std::string& text) { warnings_.push_back(text); });
  }
  RunContent repair() {
    return repair_trajectory(folder_, examine(), [&](const std::string& text) { warnings_.push_back(text); });
  }
  /// Whether the trajectory holds the steps from `first` on and begins at a good snapshot.
  void expect_good(std::uint64_t first, std::uint64_t last) {
    RecordReader reader(folder_.trajectory());
    const TrajectoryScan scan = scan_trajectory(folder_.trajectory());
    EXPECT_EQ(scan.end.kind, RecordEnd::Kind::clean);
    EXPECT_EQ(scan.header.start_step, first);
    EXPECT_EQ(scan.end_step, last);
    for (std::uint64_t step = first; step < last; ++step)
      EXPECT_EQ(decode(reader.next().value(), scan.header.records, ""), record_of(step));
    if (first > 0) {
      EXPECT_EQ(scan.header.start_snapshot, "start-5.h5");
      EXPECT_EQ(start_state(folder_, scan.header).values, state_of(first).values);
    }
  }

  ScratchFolder scratch_;
  RunFolder folder_{scratch_.path()};
  std::size_t header_bytes_ = 0;
  std::string whole_;
  std::vector<std::string> warnings_;
};

TEST_F(RecoveryTest, AWholeTrajectoryIsLeftAlone) {
  const RunContent content = repair();
  EXPECT_EQ(content.step, steps);
  EXPECT_EQ(content.valid_bytes, whole_.size());
  EXPECT_EQ(content.damage, "");
  EXPECT_EQ(read_all(folder_.trajectory()), whole_);
  EXPECT_FALSE(file_exists(folder_.damaged_trajectory(1)));
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(RecoveryTest, AFlippedBitAnywhereCostsAtMostWhatLiesBehindTheNewestSnapshot) {
  using Trajectory = RunContent::Trajectory;
  for (std::size_t at = 0; at < whole_.size(); ++at) {
    flip(at);
    const RunContent content = examine();
    ASSERT_NE(content.damage, "") << at;
    if (at < header_bytes_) {
      ASSERT_EQ(content.trajectory, Trajectory::useless) << at;
      ASSERT_EQ(content.step, newest) << at;
      ASSERT_EQ(content.header.to_json(), small_header().to_json());
      continue;
    }
    const std::uint64_t damaged = (at - header_bytes_) / record_bytes;
    const bool last = damaged == steps - 1;  // as a torn end looks
    ASSERT_EQ(content.trajectory, last ? Trajectory::good : Trajectory::damaged) << at;
    ASSERT_EQ(content.step, std::max(damaged, newest)) << at;
    ASSERT_EQ(content.snapshot.has_value(), damaged < newest) << at;
  }
}

TEST_F(RecoveryTest, TheTrajectoryBeginsAtTheSnapshotAndKeepsTheRecordsBehindIt) {
  // A length, an index, a learning rate, a coefficient and a checksum of an early record.
  int number = 0;
  for (const std::size_t at :
       {std::size_t{0}, std::size_t{4}, std::size_t{12}, std::size_t{33}, std::size_t{40}}) {
    flip(header_bytes_ + 3 * record_bytes + at);
    const std::string damaged = read_all(folder_.trajectory());
    const RunContent content = repair();
    EXPECT_EQ(content.step, steps);
    EXPECT_EQ(content.header.start_step, newest);
    EXPECT_EQ(content.valid_bytes, file_size(folder_.trajectory()));
    expect_good(newest, steps);
    EXPECT_EQ(read_all(folder_.damaged_trajectory(++number)), damaged);
    EXPECT_NE(warnings_.back().find("trajectory.damaged-" + std::to_string(number)), std::string::npos);
    EXPECT_EQ(list_snapshots(folder_.snapshots()).size(), 2u);
  }
}

TEST_F(RecoveryTest, StepsBeforeTheTrajectoryAreThoseOfSnapshots) {
  flip(20);
  const RunHeader header = repair().header;
  const auto values_after = [&](std::uint64_t step) {
    return state_after(folder_, header, step, [](const std::string&) {}).values;
  };
  EXPECT_EQ(values_after(2), state_of(2).values);
  EXPECT_EQ(values_after(newest), state_of(newest).values);
  EXPECT_THROW(values_after(3), InputError);
  EXPECT_THROW(values_after(newest + 1), InputError);
  EXPECT_NE(message_of<InputError>([&] { values_after(1); }).find("begins at step 5"), std::string::npos);
}

TEST_F(RecoveryTest, ADamagedHeaderLeavesTheSnapshot) {
  // Magic, version, length, payload, checksum.
  for (const std::size_t at :
       {std::size_t{0}, std::size_t{8}, std::size_t{12}, std::size_t{40}, header_bytes_ - 1}) {
    flip(at);
    EXPECT_EQ(repair().step, newest);
    expect_good(newest, newest);
  }
}

TEST_F(RecoveryTest, ASecondDamageEndsWhatIsKept) {
  flip(header_bytes_ + 3 * record_bytes + 5);
  std::string twice = read_all(folder_.trajectory());
  twice[header_bytes_ + 6 * record_bytes + 9] ^= 1;
  scratch_.write("trajectory", twice);
  EXPECT_EQ(repair().step, 6u);
  expect_good(newest, 6);
}

TEST_F(RecoveryTest, WithoutASnapshotTheGoodRecordsBeforeTheDamageStay) {
  std::filesystem::remove_all(folder_.snapshots());
  flip(header_bytes_ + 3 * record_bytes + 5);
  const std::string damaged = read_all(folder_.trajectory());
  const RunContent content = repair();
  EXPECT_EQ(content.step, 3u);
  EXPECT_EQ(content.valid_bytes, header_bytes_ + 3 * record_bytes);
  EXPECT_EQ(read_all(folder_.damaged_trajectory(1)), damaged);
  flip(20);
  EXPECT_NE(message_of<InputError>([&] { repair(); }).find("no snapshot in"), std::string::npos);
  EXPECT_FALSE(file_exists(folder_.damaged_trajectory(2)));
}

TEST_F(RecoveryTest, SnapshotsThatAreNotGoodArePassedOver) {
  std::string snapshot = read_all(folder_.snapshot(newest));
  snapshot[snapshot.size() / 2] ^= 1;
  scratch_.write("snapshots/step-5.h5", snapshot);
  RunHeader other = small_header();
  other.identity[0].value = "0.02";
  write_snapshot(folder_.snapshot(7), other, state_of(7));
  write_snapshot(folder_.snapshot(6), small_header(), state_of(4));
  flip(header_bytes_ + 5);
  const RunContent content = examine();
  EXPECT_EQ(content.step, 2u);
  EXPECT_EQ(warnings_.size(), 3u);
}

TEST_F(RecoveryTest, ACopyThatAKilledStartMadeIsNotMadeAgain) {
  flip(20);
  const std::string damaged = read_all(folder_.trajectory());
  repair();
  scratch_.write("trajectory", damaged);  // the kill came before the new one was in place
  repair();
  EXPECT_TRUE(file_exists(folder_.damaged_trajectory(1)));
  EXPECT_FALSE(file_exists(folder_.damaged_trajectory(2)));
}

// ---- what of a folder is a run's own ----------------------------------------------------------------------

TEST(RunFolder, TellsWhatARunHasNotWritten) {
  const ScratchFolder scratch;
  const RunFolder folder{scratch.path()};
  EXPECT_EQ(find_foreign(folder, RunProgress::none), std::nullopt);
  create_directories(folder.snapshots());
  for (const char* name : {".lock", ".starting", ".config.yaml.tmp-12", "snapshots/.step-5.h5.tmp-3"})
    scratch.write(name, "");
  EXPECT_EQ(find_foreign(folder, RunProgress::none), std::nullopt);

  create_directories(folder.initial_adapter());
  const auto expect = [&](const std::string& name, RunProgress first) {
    const std::string path = scratch.write(name, "x");
    for (const RunProgress progress : {RunProgress::none, RunProgress::starting, RunProgress::started}) {
      const auto found = find_foreign(folder, progress);
      if (progress < first) EXPECT_TRUE(found && path.starts_with(*found)) << name;
      else EXPECT_EQ(found, std::nullopt) << name;
    }
    std::filesystem::remove(path);
    if (name.starts_with("initial_adapter")) std::filesystem::remove(folder.initial_adapter());
  };
  const auto never = static_cast<RunProgress>(3);
  expect("initial_adapter/adapter_config.json", RunProgress::starting);
  create_directories(folder.initial_adapter());
  expect("initial_adapter/README.md", never);
  for (const char* name : {"config.yaml", "start.h5", "start.h5.sha256"}) expect(name, RunProgress::starting);
  for (const char* name :
       {"metrics.jsonl", "trajectory", "trajectory.damaged-1", "snapshots/step-5.h5.sha256"})
    expect(name, RunProgress::started);
  for (const char* name :
       {"notes.txt", "snapshots/step-5.h5", "snapshots/notes", "trajectory.damaged-01", "adapter"})
    expect(name, never);
}

TEST(RunFolder, RemovesNothingElse) {
  const ScratchFolder scratch;
  const RunFolder folder{scratch.path()};
  const ScratchFolder elsewhere;
  elsewhere.write("adapter_config.json", "kept");
  create_directories(folder.snapshots());
  create_directories(folder.adapter());
  for (const char* name : {"metrics.jsonl", "start.h5", "start-5.h5", "trajectory.damaged-1",
                           "snapshots/step-5.h5", "adapter/adapter_config.json"})
    scratch.write(name, "");
  for (const char* name : {"notes.txt", "adapter/README.md", "snapshots/notes", "trajectory", "config.yaml"})
    scratch.write(name, "kept");
  std::filesystem::create_directory_symlink(elsewhere.path(), folder.initial_adapter());
  remove_run(folder, [&](const std::string& path) { return path == folder.start_snapshot(); });
  EXPECT_EQ(read_all(elsewhere / "adapter_config.json"), "kept");
  std::vector<std::string> left;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(scratch.path()))
    if (!entry.is_directory()) left.push_back(entry.path().string().substr(scratch.path().size() + 1));
  std::sort(left.begin(), left.end());
  EXPECT_EQ(left, (std::vector<std::string>{"adapter/README.md", "config.yaml", "notes.txt",
                                            "snapshots/notes", "start.h5", "trajectory"}));
}

}  // namespace
}  // namespace mezzo
