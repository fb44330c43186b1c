// The contracts of a run on GPUs, seen from outside: the same bits on one card and on two, after a kill, and
// from the trajectory alone on a processor.
#include <gtest/gtest.h>

#include "mezzo/backend/devices.h"
#include "program.h"

namespace mezzo::test {
namespace {

constexpr int steps = 12;

std::string train(const std::string& output, const std::string& more = "", int max_steps = steps) {
  return fmt::format(
      "train configs/quickstart.yaml runtime.device=cuda train.output_dir={} train.max_steps={} "
      "train.batch_size=6 train.batch_slices=2 zo.directions=3 train.save_steps=5 train.eval_steps=6 "
      "zo.normalize=none optimizer.lr_scheduler_type=constant optimizer.learning_rate=3e-3 "
      "train.hash_steps=4 train.logging_steps=1 data.max_train_examples=40 data.validation=null {}",
      output, max_steps, more);
}

class GpuRun : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    if (!cuda_available(&reason)) GTEST_SKIP() << reason;
  }

  /// Trains to the end and returns the hash of the final trainables.
  std::string final_hash(const std::string& name, const std::string& more = "", const Launch& launch = {}) {
    const Outcome outcome = run(scratch_, train(scratch_ / name, more), launch);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(info(scratch_, scratch_ / name).at("step"), steps);
    return hash_of(scratch_, scratch_ / name);
  }

  ScratchFolder scratch_;
};

TEST_F(GpuRun, TwoCardsGiveTheBitsOfOne) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  if (cuda_devices().size() < 2) GTEST_SKIP() << "needs two GPUs, found " << cuda_devices().size();
  const std::string expected = final_hash("one");
  EXPECT_EQ(final_hash("group1", "zo.probes_per_forward=1"), expected);
  EXPECT_EQ(final_hash("two", "", {.ranks = 2}), expected);
  EXPECT_EQ(final_hash("two-group1", "zo.probes_per_forward=1", {.ranks = 2}), expected);
  // Another seed gives something else: the hashes are not constant.
  EXPECT_NE(final_hash("other", "train.seed=7", {.ranks = 2}), expected);
}

TEST_F(GpuRun, TwoRanksNeverShareACard) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  const Outcome outcome =
      run(scratch_, train(scratch_ / "run"), {.ranks = 2, .environment = "CUDA_VISIBLE_DEVICES=0"});
  EXPECT_EQ(outcome.status, 2) << outcome.err;
  ASSERT_EQ(outcome.errors().size(), 1u) << outcome.err;
  EXPECT_NE(outcome.errors()[0].find("would share the GPU"), std::string::npos) << outcome.errors()[0];
}

TEST_F(GpuRun, GoesOnToTheSameBitsAndIsReplayedOnAProcessor) {
  const std::string expected = final_hash("whole");

  const Outcome half = run(scratch_, train(scratch_ / "resumed", "", 7));
  EXPECT_EQ(half.status, 0) << half.err;
  const Outcome rest = run(scratch_, train(scratch_ / "resumed"));
  EXPECT_NE(rest.err.find("going on from step 7"), std::string::npos) << rest.err;
  EXPECT_EQ(hash_of(scratch_, scratch_ / "resumed"), expected);

  // Killed once its first step is on disk, unless it ends before that.
  run(scratch_, train(scratch_ / "killed"),
      {.kill_after = 0.001, .kill_once = scratch_ / "killed/metrics.jsonl"});
  EXPECT_EQ(final_hash("killed"), expected);

  // The trajectory alone, on a machine that has no GPU.
  std::filesystem::remove_all(scratch_ / "whole/snapshots");
  const Outcome replayed =
      run(scratch_, fmt::format("replay {} --adapter {}", scratch_ / "whole", scratch_ / "replayed"),
          {.environment = "CUDA_VISIBLE_DEVICES=-1"});
  EXPECT_EQ(replayed.status, 0) << replayed.err;
  EXPECT_EQ(hash_of(scratch_, scratch_ / "replayed"), expected);
}

}  // namespace
}  // namespace mezzo::test
