// Runs that earlier versions began: their records resume and replay to the bits that those versions got.
//
// tests/data/runs holds what version 1 of the record left of four runs after 5 steps on the reference
// backend, with configs/quickstart's model and data.
#include <gtest/gtest.h>

#include "program.h"

namespace mezzo::test {
namespace {

struct OldRun {
  const char* name;
  const char* overrides;  ///< behind those of all
  int first_step;
  const char* after_5;  ///< trainables_sha256
  const char* after_8;
};

constexpr OldRun old_runs[] = {
    {"plain", "", 0, "77585a8d12272196d7539f054ad18f640ab0f748e23f03a62c3e04d0f27ca94e",
     "92c90e1a2c742f2c4dd49d0754b8892805f22027f27a5cf422b74b49eb950f90"},
    {"signs", "zo.noise=rademacher zo.estimator=one_sided", 0,
     "863d98b07ca1975b862459c82b03292896aba1a3a4673f52ad06c97553c58430",
     "1cac54d1059c34b1ace558a5eb0b564b729ba7743dd7ecbb14b86df84f09fb3f"},
    {"from_snapshot", "", 3, "77585a8d12272196d7539f054ad18f640ab0f748e23f03a62c3e04d0f27ca94e",
     "92c90e1a2c742f2c4dd49d0754b8892805f22027f27a5cf422b74b49eb950f90"},
    {"from_adapter", "train.seed=3", 0, "abc64914dfa3e076443b3a6b2ade9f6a6bffa2d80133c9d3cb08142e5d145fc6",
     "b51d3edd2737844f86ffe9ac7829eb43dc855e683368812d419137f289a1fd09"},
};

class OldRunsTest : public ::testing::Test {
 protected:
  /// A copy of the run as it was found.
  std::string copy_of(const OldRun& run) {
    const std::string folder = scratch_ / run.name;
    std::filesystem::copy(std::string(MEZZO_TEST_DATA "/runs/") + run.name, folder,
                          std::filesystem::copy_options::recursive);
    return folder;
  }

  /// The command that began the run; `written`: also what its record would tell.
  std::string train(const std::string& folder, const OldRun& run, int steps, bool written) {
    std::string command = fmt::format(
        "train configs/quickstart.yaml data.validation=null data.max_train_examples=20 zo.directions=2 "
        "optimizer.weight_decay=0.25 lora.r=1 train.batch_size=4 runtime.threads=1 train.output_dir={} "
        "train.max_steps={} ",
        folder, steps);
    if (written)
      command +=
          "'lora.target_modules=[v_proj]' lora.layers_to_transform=1 runtime.device=reference "
          "zo.normalize=none optimizer.lr_scheduler_type=constant optimizer.learning_rate=3e-3 ";
    command += run.overrides;
    if (std::filesystem::exists(folder + "/initial_adapter")) {
      command += " lora.adapter=" + folder + "/initial_adapter";
    }
    return command;
  }

  ScratchFolder scratch_;
};

TEST_F(OldRunsTest, ReplayToTheSameBits) {
  for (const OldRun& old : old_runs) {
    SCOPED_TRACE(old.name);
    const std::string folder = copy_of(old);
    EXPECT_EQ(hash_of(scratch_, folder), old.after_5);
    const std::string target = scratch_ / (std::string(old.name) + "-replayed");
    const Outcome replayed = run(
        scratch_, fmt::format("replay {} --model configs/quickstart/llama2m --adapter {}", folder, target));
    EXPECT_EQ(replayed.status, 0) << replayed.err;
    EXPECT_EQ(hash_of(scratch_, target), old.after_5);
  }
}

TEST_F(OldRunsTest, ResumeToTheSameBits) {
  // Whose libm and rounding are those of the machine that made the old runs gets the same losses.
  const OldRun& plain = old_runs[0];
  const Outcome fresh = run(scratch_, train(scratch_ / "fresh", plain, 5, true));
  ASSERT_EQ(fresh.status, 0) << fresh.err;
  const bool same_machine = hash_of(scratch_, scratch_ / "fresh") == plain.after_5;
  for (const OldRun& old : old_runs) {
    for (const bool written : {true, false}) {
      if (written && &old != &plain) continue;
      SCOPED_TRACE(fmt::format("{}, {}", old.name, written ? "written" : "left to the record"));
      const std::string folder = copy_of(old);
      const Outcome resumed = run(scratch_, train(folder, old, 8, written));
      EXPECT_EQ(resumed.status, 0) << resumed.err;
      EXPECT_NE(resumed.err.find("going on from step 5"), std::string::npos) << resumed.err;
      EXPECT_NE(resumed.err.find("did not record its tokenizer"), std::string::npos) << resumed.err;
      EXPECT_EQ(info(scratch_, folder).at("step"), 8);
      if (same_machine) {
        EXPECT_EQ(hash_of(scratch_, folder), old.after_8);
      }
      // What the new version has appended replays as well.
      std::filesystem::remove_all(folder + "/snapshots");
      const std::string target = folder + "-replayed";
      EXPECT_EQ(run(scratch_,
                    fmt::format("replay {} --model configs/quickstart/llama2m --adapter {}", folder, target))
                    .status,
                0);
      EXPECT_EQ(hash_of(scratch_, target), hash_of(scratch_, folder + "/adapter"));
      std::filesystem::remove_all(folder);
      std::filesystem::remove_all(target);
    }
  }
}

// A run does not change when a default does, nor when an override is forgotten.
TEST_F(OldRunsTest, WhatAConfigLeavesUnwrittenStaysAsItWas) {
  const std::string command =
      "train configs/quickstart.yaml data.validation=null runtime.threads=1 train.output_dir=" +
      (scratch_ / "run");
  const std::string overrides =
      " train.max_steps=3 train.batch_size=4 data.max_train_examples=20 lora.r=2 train.seed=9 "
      "optimizer.lr_scheduler_type=constant zo.step_limit=null";
  const Outcome first = run(scratch_, command + overrides);
  ASSERT_EQ(first.status, 0) << first.err;
  const std::string hash = hash_of(scratch_, scratch_ / "run");

  // batch_size stands in the file, so that it is another run; the rest does not.
  const Outcome other = run(scratch_, command);
  EXPECT_EQ(other.status, 2) << other.err;
  EXPECT_NE(other.err.find("train.batch_size is 4 there, but 32 now"), std::string::npos) << other.err;
  const Outcome same = run(scratch_, command + " train.batch_size=4 train.max_steps=3");
  EXPECT_EQ(same.status, 0) << same.err;
  EXPECT_NE(same.err.find("lora.r = 2"), std::string::npos) << same.err;
  EXPECT_NE(same.err.find("train.seed = 9"), std::string::npos) << same.err;
  EXPECT_NE(same.err.find("has finished its 3 steps"), std::string::npos) << same.err;
  EXPECT_EQ(hash_of(scratch_, scratch_ / "run"), hash);
}

}  // namespace
}  // namespace mezzo::test
