// A run's folder, seen from outside: nothing that the run did not write is touched, and nothing good is lost.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "program.h"

namespace mezzo::test {
namespace {

constexpr int steps = 12;

/// A run that takes less than a second.
std::string train(const std::string& output, const std::string& more = "") {
  return fmt::format(
      "train configs/quickstart.yaml train.output_dir={} train.max_steps={} train.batch_size=4 "
      "zo.directions=2 zo.normalize=none optimizer.lr_scheduler_type=constant optimizer.learning_rate=3e-3 "
      "train.save_steps=5 train.logging_steps=1 data.max_train_examples=40 data.max_length=64 "
      "data.validation=null runtime.threads=1 {}",
      output, steps, more);
}

/// Of a trajectory's bytes.
std::size_t header_bytes(const std::string& trajectory) {
  std::uint32_t payload = 0;
  std::memcpy(&payload, trajectory.data() + 12, sizeof payload);
  return 8 + 4 + 4 + payload + 4;
}

class FolderTest : public ::testing::Test {
 protected:
  std::string final_hash(const std::string& name, const std::string& more = "", const Launch& launch = {}) {
    const Outcome outcome = run(scratch_, train(scratch_ / name, more), launch);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    last_ = outcome.err;
    return hash_of(scratch_, scratch_ / name);
  }
  /// The message of a start that is refused.
  std::string refused(const std::string& name, const std::string& more = "") {
    const Outcome outcome = run(scratch_, train(scratch_ / name, more));
    EXPECT_EQ(outcome.status, 2) << outcome.err;
    EXPECT_EQ(outcome.errors().size(), 1u) << outcome.err;
    return outcome.err;
  }
  /// All files of a folder but the lock, with their contents.
  std::string content(const std::string& name) {
    std::string all;
    std::vector<std::string> paths;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(scratch_ / name))
      if (!entry.is_directory() && entry.path().filename() != ".lock") paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    for (const std::string& path : paths) all += path + '\n' + read_all(path) + '\n';
    return all;
  }

  ScratchFolder scratch_;
  std::string last_;  ///< what the last final_hash() printed
};

TEST_F(FolderTest, ClosedDescriptorsWriteIntoNoFile) {
  const std::string expected = final_hash("whole");
  const std::string trajectory = read_all(scratch_ / "whole/trajectory");
  int number = 0;
  for (const char* closed : {"<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"}) {
    const std::string program = scratch_ / "closed.sh";
    write_file(program, fmt::format("#!/bin/sh\nexec {} \"$@\" {}\n", MEZZO_PROGRAM, closed));
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    const std::string name = fmt::format("closed-{}", number++);
    EXPECT_EQ(final_hash(name, "", {.program = program}), expected) << closed;
    const std::string folder = scratch_ / name;
    EXPECT_EQ(read_all(folder + "/trajectory"), trajectory) << closed;
    EXPECT_EQ(read_all(folder + "/.lock").find('\n'), std::string::npos) << closed;
    EXPECT_LT(read_all(folder + "/.lock").size(), 100u) << closed;
    std::istringstream metrics(read_all(folder + "/metrics.jsonl"));
    int lines = 0;
    for (std::string line; std::getline(metrics, line); ++lines)
      EXPECT_TRUE(nlohmann::json::accept(line)) << closed << ": " << line;
    EXPECT_EQ(lines, steps) << closed;
  }
}

TEST_F(FolderTest, WhatSomebodyElseWroteIsRefusedAndLeftAlone) {
  int number = 0;
  for (const char* file :
       {"adapter/adapter_config.json", "adapter/notes", "initial_adapter/adapter_config.json", "config.yaml",
        "metrics.jsonl", "start.h5", "notes.txt", "snapshots/notes", ".lock"}) {
    const std::string name = fmt::format("other-{}", number++);
    const std::string path = scratch_ / (name + "/" + file);
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    write_file(path, "somebody's");
    const Outcome outcome = run(scratch_, train(scratch_ / name));
    EXPECT_NE(outcome.status, 0) << file;
    EXPECT_EQ(outcome.errors().size(), 1u) << outcome.err;
    EXPECT_EQ(read_all(path), "somebody's") << file;
    EXPECT_FALSE(std::filesystem::exists(scratch_ / (name + "/trajectory"))) << file;
  }
  EXPECT_NE(refused("other-0").find("other-0/adapter: is not of this run"), std::string::npos);
  // What a run writes is replaced when that is asked for, all else stays.
  final_hash("other-1", "--overwrite");
  EXPECT_EQ(read_all(scratch_ / "other-1/adapter/notes"), "somebody's");
  final_hash("other-6", "--overwrite");
  EXPECT_EQ(read_all(scratch_ / "other-6/notes.txt"), "somebody's");
}

TEST_F(FolderTest, ARunWhoseTrajectoryIsGoneIsNotBegunAgain) {
  final_hash("run");
  std::filesystem::remove(scratch_ / "run/trajectory");
  const std::string before = content("run");
  const Outcome with_snapshots = run(scratch_, train(scratch_ / "run"));
  EXPECT_EQ(with_snapshots.status, 1) << with_snapshots.err;
  EXPECT_EQ(content("run"), before);
  std::filesystem::remove_all(scratch_ / "run/snapshots");
  const std::string left = content("run");
  refused("run");
  refused("run", "train.resume_from_checkpoint=never");
  EXPECT_EQ(content("run"), left);
}

TEST_F(FolderTest, AnInterruptedStartIsBegunAgain) {
  const std::string expected = final_hash("whole");
  std::filesystem::create_directories(scratch_ / "begun/snapshots");
  for (const char* name : {".starting", "config.yaml", ".trajectory.tmp-12", "grader-rank1-worker0.log"})
    write_file(scratch_ / (std::string("begun/") + name), "of the start");
  EXPECT_EQ(final_hash("begun"), expected);
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "begun/.starting"));
  // A trajectory without a step: the metrics of before are no longer right.
  const std::string trajectory = read_all(scratch_ / "whole/trajectory");
  const std::size_t header = header_bytes(trajectory);
  std::filesystem::create_directories(scratch_ / "no-step");
  write_file(scratch_ / "no-step/trajectory", trajectory.substr(0, header));
  write_file(scratch_ / "no-step/metrics.jsonl", "{\"step\": 0, \"eval_loss\": 1}\n");
  EXPECT_EQ(final_hash("no-step"), expected);
}

TEST_F(FolderTest, OverwriteWithASnapshotOfTheSameFolderLosesNothing) {
  const std::string expected = final_hash("run");
  std::filesystem::create_directory_symlink(scratch_ / "run", scratch_ / "link");
  std::filesystem::create_symlink(scratch_ / "run/snapshots/step-5.h5", scratch_ / "five.h5");
  std::filesystem::create_hard_link(scratch_ / "run/snapshots/step-5.h5", scratch_ / "hard.h5");
  const std::string trajectory = read_all(scratch_ / "run/trajectory");
  for (const char* snapshot :
       {"link/snapshots/step-5.h5", "five.h5", "hard.h5", "run/snapshots/../snapshots/step-5.h5"}) {
    const std::string from = "train.resume_from_checkpoint=" + (scratch_ / snapshot);
    EXPECT_NE(refused("run", from).find("going back to step 5 needs --overwrite"), std::string::npos);
    EXPECT_EQ(final_hash("run", from + " --overwrite"), expected) << snapshot;
    EXPECT_EQ(read_all(scratch_ / "run/trajectory"), trajectory) << snapshot;
    // Of another run it is refused before anything goes.
    const std::string before = content("run");
    refused("run", from + " --overwrite zo.epsilon=0.02");
    EXPECT_EQ(content("run"), before) << snapshot;
  }
}

TEST_F(FolderTest, OverwriteWithAnAdapterOfTheSameFolderBeginsWithIt) {
  const std::string first = final_hash("run");
  std::filesystem::create_directory_symlink(scratch_ / "run", scratch_ / "link");
  const std::string from = "lora.adapter=" + (scratch_ / "link/adapter");
  EXPECT_NE(final_hash("run", from + " --overwrite"), first);
  EXPECT_EQ(hash_of(scratch_, scratch_ / "run/initial_adapter"), first);
  const Outcome replay =
      run(scratch_, fmt::format("replay {} --step 0 --adapter {}", scratch_ / "run", scratch_ / "zero"));
  EXPECT_EQ(replay.status, 0) << replay.err;
  EXPECT_EQ(hash_of(scratch_, scratch_ / "zero"), first);
}

TEST_F(FolderTest, ADamagedTrajectoryGoesOnFromTheNewestGoodSnapshot) {
  const std::string expected = final_hash("whole");
  // Before its end: ten steps and some of those behind have no snapshot.
  std::filesystem::remove_all(scratch_ / "whole/adapter");
  for (const char* name : {"step-12.h5", "step-12.h5.sha256"})
    std::filesystem::remove(scratch_ / (std::string("whole/snapshots/") + name));
  const std::string trajectory = read_all(scratch_ / "whole/trajectory");
  const std::size_t header = header_bytes(trajectory);
  const std::size_t record = (trajectory.size() - header) / steps;
  int number = 0;
  for (const std::size_t at :
       {std::size_t{3}, std::size_t{9}, std::size_t{13}, std::size_t{200}, header - 2, header,
        header + record + 6, header + 3 * record + 20, header + 11 * record - 1, header + 12 * record - 1}) {
    const std::string name = fmt::format("run-{}", number++);
    std::filesystem::copy(scratch_ / "whole", scratch_ / name, std::filesystem::copy_options::recursive);
    std::string damaged = trajectory;
    damaged[at] ^= 4;
    write_file(scratch_ / (name + "/trajectory"), damaged);
    EXPECT_EQ(info(scratch_, scratch_ / name).at("step"), at < header + 11 * record ? 10 : 11);
    EXPECT_EQ(final_hash(name), expected) << at;
    EXPECT_EQ(info(scratch_, scratch_ / name).at("step"), steps);
    EXPECT_TRUE(std::filesystem::exists(scratch_ / (name + "/snapshots/step-5.h5")));
    std::istringstream metrics(read_all(scratch_ / (name + "/metrics.jsonl")));
    int lines = 0;
    for (std::string line; std::getline(metrics, line);) ++lines;
    EXPECT_EQ(lines, steps) << at;
    if (at >= header + 11 * record) continue;  // looks torn: cut and done again
    EXPECT_EQ(read_all(scratch_ / (name + "/trajectory.damaged-1")), damaged);
    EXPECT_NE(last_.find("trajectory.damaged-1 keeps the damaged file"), std::string::npos) << last_;
    if (at >= header + 10 * record) continue;  // no snapshot behind it: the records before it stay
    const std::string replayed = scratch_ / (name + "-replayed");
    EXPECT_EQ(run(scratch_, fmt::format("replay {} --adapter {}", scratch_ / name, replayed)).status, 0);
    EXPECT_EQ(hash_of(scratch_, replayed), expected);
    const Outcome early =
        run(scratch_, fmt::format("replay {} --step 9 --adapter {}-9", scratch_ / name, replayed));
    EXPECT_EQ(early.status, 2) << early.err;
    EXPECT_NE(early.err.find("expected 10 to 12"), std::string::npos) << early.err;
  }
}

TEST_F(FolderTest, ADamagedHeaderWithoutASnapshotLosesNothing) {
  final_hash("run");
  std::filesystem::remove_all(scratch_ / "run/snapshots");
  std::string trajectory = read_all(scratch_ / "run/trajectory");
  trajectory[40] ^= 1;
  write_file(scratch_ / "run/trajectory", trajectory);
  const std::string before = content("run");
  const Outcome outcome = run(scratch_, train(scratch_ / "run"));
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  EXPECT_EQ(outcome.errors().size(), 1u) << outcome.err;
  EXPECT_EQ(content("run"), before);
}

// What a terminal would obey: an escape sequence, a C1 control, an override of direction, a broken character.
TEST_F(FolderTest, NamesOfFilesReachTheTerminalAsText) {
  final_hash("run");
  const std::string name = scratch_ /
                           "a\x1b[2Jb\u009bc\u202ed\xff"
                           "e";
  std::filesystem::rename(scratch_ / "run", name);
  const Outcome text = run(scratch_, fmt::format("info '{}'", name));
  EXPECT_EQ(text.status, 0) << text.err;
  EXPECT_NE(text.out.find("a\\x1b[2Jb\\u009bc\\u202ed\\xffe"), std::string::npos) << text.out;
  const Outcome json = run(scratch_, fmt::format("info '{}' --json", name));
  for (const char c : json.out) EXPECT_TRUE((c >= ' ' && c < 0x7f) || c == '\n') << json.out;
  EXPECT_TRUE(nlohmann::json::accept(json.out)) << json.out;
  const Outcome error = run(scratch_, fmt::format("info '{}-none'", name));
  EXPECT_EQ(error.status, 1) << error.err;
  EXPECT_NE(error.err.find("a\\x1b[2Jb\\u009bc\\u202ed\\xffe-none"), std::string::npos) << error.err;
}

TEST_F(FolderTest, HangUpEndsAfterTheStepUnlessItWasIgnored) {
  const auto lengthy = [&](const std::string& name, int max_steps) {
    std::string all = train(scratch_ / name);
    const std::string old = fmt::format("train.max_steps={}", steps);
    return all.replace(all.find(old), old.size(), fmt::format("train.max_steps={}", max_steps));
  };
  const Outcome stopped =
      run(scratch_, lengthy("run", 100000),
          {.kill_after = 0.2, .signal = SIGHUP, .kill_once = scratch_ / "run/metrics.jsonl"});
  EXPECT_EQ(stopped.status, 75) << stopped.err;
  EXPECT_TRUE(std::filesystem::exists(
      scratch_ /
      fmt::format("run/snapshots/step-{}.h5", info(scratch_, scratch_ / "run").at("step").get<int>())));
  const std::string program = scratch_ / "nohup.sh";
  write_file(program, fmt::format("#!/bin/sh\ntrap '' HUP\nexec {} \"$@\"\n", MEZZO_PROGRAM));
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  const Outcome ignored = run(scratch_, lengthy("ignored", 200),
                              {.kill_after = 0.1,
                               .signal = SIGHUP,
                               .program = program,
                               .kill_once = scratch_ / "ignored/metrics.jsonl"});
  EXPECT_EQ(ignored.status, 0) << ignored.err;
}

}  // namespace
}  // namespace mezzo::test
