#include "mezzo/train/snapshots.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "io/killed_child.h"
#include "mezzo/core/error.h"
#include "mezzo/io/checksummed_file.h"
#include "mezzo/io/files.h"
#include "mezzo/io/hdf5_file.h"
#include "scratch.h"
#include "train/small_run.h"

namespace mezzo {
namespace {

using test::names_in;
using test::ScratchFolder;
using test::small_header;
using test::small_state;

TEST(Snapshots, ListsNewestFirstAndOnlyItsOwnNames) {
  const ScratchFolder folder;
  for (const char* name :
       {"step-9.h5", "step-10.h5", "step-0.h5", "step-18446744073709551615.h5",
        "step-18446744073709551616.h5", "step-07.h5", "step-.h5", "step--1.h5", "step-5.h5.sha256", "step-5",
        ".step-6.h5.tmp-1", "step-6.h5x", "xstep-6.h5", "step- 6.h5"})
    folder.write(name, "");
  std::vector<std::uint64_t> steps;
  for (const SnapshotFile& file : list_snapshots(folder.path())) {
    steps.push_back(file.step);
    EXPECT_EQ(file.path, folder / snapshot_name(file.step));
  }
  EXPECT_EQ(steps, (std::vector<std::uint64_t>{18446744073709551615u, 10, 9, 0}));
  EXPECT_TRUE(list_snapshots(folder / "none").empty());
}

std::vector<std::string> after_pruning(const std::vector<std::uint64_t>& steps, std::size_t limit,
                                       std::uint64_t good, std::optional<std::uint64_t> best = {}) {
  const ScratchFolder folder;
  for (const std::uint64_t step : steps) {
    folder.write(snapshot_name(step), "");
    folder.write(sha256_sidecar_path(snapshot_name(step)), "");
  }
  folder.write("step-1.h5.sha256", "");  // what a crash before the rename leaves
  folder.write("notes", "");
  const std::size_t before = steps.size();
  const std::vector<std::string> removed = prune_snapshots(folder.path(), limit, good, best);
  const std::vector<SnapshotFile> left = list_snapshots(folder.path());
  EXPECT_EQ(removed.size() + left.size(), before);
  EXPECT_EQ(names_in(folder.path()).size(), 2 * left.size() + 1);
  for (const SnapshotFile& file : left) EXPECT_TRUE(file_exists(sha256_sidecar_path(file.path)));
  std::vector<std::string> names;
  for (const SnapshotFile& file : left) names.push_back(std::filesystem::path(file.path).filename());
  return names;
}

TEST(Snapshots, PruningKeepsTheNewestAndTheGoodOne) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(after_pruning({10, 20, 30, 40}, 3, 40), (Names{"step-40.h5", "step-30.h5", "step-20.h5"}));
  EXPECT_EQ(after_pruning({9, 10, 100}, 1, 100), (Names{"step-100.h5"}));
  EXPECT_EQ(after_pruning({10, 20}, 3, 20), (Names{"step-20.h5", "step-10.h5"}));
  EXPECT_EQ(after_pruning({10, 20}, 0, 20), (Names{"step-20.h5"}));
  // 30 and 40 are damaged, the run went on from 20: they do not push it out.
  EXPECT_EQ(after_pruning({10, 20, 30, 40}, 1, 20), (Names{"step-40.h5", "step-30.h5", "step-20.h5"}));
  EXPECT_EQ(after_pruning({}, 1, 20), (Names{}));
  // The best one stays besides, and counts where it is among the newest.
  EXPECT_EQ(after_pruning({10, 20, 30, 40}, 1, 40, 20), (Names{"step-40.h5", "step-20.h5"}));
  EXPECT_EQ(after_pruning({10, 20, 30, 40}, 2, 40, 30), (Names{"step-40.h5", "step-30.h5"}));
  EXPECT_EQ(after_pruning({10, 20}, 1, 20, 5), (Names{"step-20.h5"}));
}

// The names of a large model's trainables alone are more than HDF5's older formats take in an attribute.
TEST(Snapshots, AttributesAbove64KiB) {
  const ScratchFolder folder;
  const RunHeader header = small_header(1200);
  ASSERT_GT(header.to_json().size(), 65536u);
  const RunState state = small_state(header, 3);
  write_snapshot(folder / "step-3.h5", header, state);
  const Snapshot snapshot = read_snapshot(folder / "step-3.h5");
  EXPECT_EQ(snapshot.header.to_json(), header.to_json());
  EXPECT_EQ(snapshot.state.values, state.values);
}

TEST(Snapshots, KilledWriterLeavesOnlyWholeSnapshots) {
  // Kills come within the time that a few snapshots take here, which a slow disk and sanitizers make long.
  const auto start = std::chrono::steady_clock::now();
  {
    const ScratchFolder trial;
    for (int i = 0; i < 6; ++i)
      write_snapshot(trial / "a.h5", small_header(), small_state(small_header(), 7));
  }
  const auto longest =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  const ScratchFolder folder;
  std::mt19937 random(5);
  test::SharedCounter committed;
  for (int round = 0; round < 30; ++round) {
    const std::uint64_t first = committed.get() + 1;
    ASSERT_TRUE(test::run_and_kill(std::chrono::microseconds(random() % longest.count()), [&] {
      for (std::uint64_t step = first;; ++step) {
        write_snapshot(folder / snapshot_name(step), small_header(), small_state(small_header(), step));
        committed.set(step);
        prune_snapshots(folder.path(), 3, step);
      }
    }));
    const std::vector<SnapshotFile> snapshots = list_snapshots(folder.path());
    ASSERT_GE(snapshots.size(), std::min<std::uint64_t>(committed.get(), 3));
    ASSERT_LE(snapshots.size(), 4u);
    for (const SnapshotFile& file : snapshots) {
      const Snapshot snapshot = read_snapshot(file.path);
      ASSERT_EQ(snapshot.state.step, file.step);
      ASSERT_EQ(snapshot.state.values, small_state(small_header(), file.step).values);
    }
    // What the kill left besides them goes away: the temporaries of a file and of its sidecar, and one
    // sidecar.
    EXPECT_LE(remove_temporary_files(folder.path()), 2u);
    if (snapshots.empty()) continue;
    ASSERT_GE(snapshots.front().step, committed.get());
    committed.set(snapshots.front().step);
    prune_snapshots(folder.path(), 3, committed.get());
    EXPECT_EQ(names_in(folder.path()).size(), 2 * std::min<std::size_t>(snapshots.size(), 3));
  }
  EXPECT_GT(committed.get(), 0u);
}

}  // namespace
}  // namespace mezzo
