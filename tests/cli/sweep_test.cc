// `mezzo sweep`: a grid of runs, each as `mezzo train` would do it.
#include <gtest/gtest.h>

#include "program.h"

namespace mezzo::test {
namespace {

class SweepTest : public ::testing::Test {
 protected:
  std::string sweep(const std::string& more) { return "sweep" + config() + more; }
  /// A config of small runs.
  std::string config() {
    return fmt::format(
        " configs/quickstart.yaml train.batch_size=2 zo.directions=1 zo.normalize=none train.logging_steps=1 "
        "runtime.threads=1 "
        "optimizer.lr_scheduler_type=constant "
        "train.output_dir={} data.validation={} ",
        scratch_ / "sweep", few_examples());
  }
  std::string few_examples() {
    std::istringstream lines(read_all(MEZZO_SOURCE_DIR "/configs/quickstart/validation.jsonl"));
    std::string few;
    for (std::string line; few.size() < 1000 && std::getline(lines, line);) few += line + '\n';
    write_file(scratch_ / "few.jsonl", few);
    return scratch_ / "few.jsonl";
  }
  std::string folder(const std::string& name) { return scratch_ / ("sweep/" + name); }

  ScratchFolder scratch_;
};

constexpr const char* grid = "optimizer.learning_rate=1e-3,5e-2 train.max_steps=6 ";

TEST_F(SweepTest, RunsAreThoseOfTrainAndTheBestIsFirst) {
  const Outcome outcome = run(scratch_, sweep(grid));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("2 runs by eval_accuracy"), std::string::npos) << outcome.out;
  for (const char* rate : {"1e-3", "5e-2"}) {
    const std::string alone = scratch_ / rate;
    const std::string train = "train" + config();
    const std::size_t at = train.find(scratch_ / "sweep");
    const std::string there = train.substr(0, at) + alone + train.substr(at + (scratch_ / "sweep").size());
    ASSERT_EQ(run(scratch_, there + "train.max_steps=6 optimizer.learning_rate=" + rate).status, 0);
    EXPECT_EQ(hash_of(scratch_, folder(std::string("learning_rate=") + rate)), hash_of(scratch_, alone));
  }
  // Again: nothing is left to be done.
  const std::string metrics = read_all(folder("learning_rate=1e-3/metrics.jsonl"));
  const Outcome again = run(scratch_, sweep(grid) + "--json --quiet");
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(again.err, "");
  EXPECT_EQ(read_all(folder("learning_rate=1e-3/metrics.jsonl")), metrics);
  const nlohmann::json runs = nlohmann::json::parse(again.out).at("runs");
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_GE(runs[0].at("eval_accuracy"), runs[1].at("eval_accuracy"));
  for (const nlohmann::json& one : runs) {
    EXPECT_EQ(one.at("step"), 6);
    EXPECT_EQ(one.at("status"), "finished");
    EXPECT_EQ(one.at("folder"), folder(one.at("name")));
    EXPECT_TRUE(one.at("eval_loss").is_number());
    // The evaluation is that of the adapter.
    EXPECT_EQ(one.at("of_step"), info(scratch_, one.at("folder").get<std::string>() + "/adapter").at("step"));
  }
  // Without evaluations by the loss, which the lower one is better of.
  const Outcome by_loss = run(scratch_,
                              "sweep configs/quickstart.yaml data.validation=null train.batch_size=2 "
                              "train.max_steps=2 train.seed=1,2 zo.directions=2 --json -q train.output_dir=" +
                                  (scratch_ / "seeds"));
  const nlohmann::json seeds = nlohmann::json::parse(by_loss.out);
  EXPECT_EQ(seeds.at("metric"), "loss");
  EXPECT_LE(seeds.at("runs")[0].at("loss"), seeds.at("runs")[1].at("loss"));
}

TEST_F(SweepTest, StoppedOrKilledItGoesOn) {
  const std::string first = "learning_rate=1e-3";
  const std::string rates =
      "optimizer.learning_rate=1e-3,5e-3 train.save_steps=100000 train.eval_steps=100000 ";
  for (const int signal : {SIGTERM, SIGKILL}) {
    std::filesystem::remove_all(scratch_ / "sweep");
    const Outcome stopped =
        run(scratch_, sweep(rates + "train.max_steps=100000"),
            {.kill_after = 0.1, .signal = signal, .kill_once = folder(first + "/metrics.jsonl")});
    EXPECT_EQ(stopped.status, signal == SIGTERM ? 75 : -SIGKILL) << stopped.err;
    EXPECT_EQ(stopped.err.find("stopped at run 1 of 2") != std::string::npos, signal == SIGTERM)
        << stopped.err;
    EXPECT_EQ(stopped.out, "");
    const int steps = info(scratch_, folder(first)).at("step").get<int>() + 2;
    const Outcome rest = run(scratch_, sweep(rates + fmt::format("train.max_steps={}", steps)));
    EXPECT_EQ(rest.status, 0) << rest.err;
    EXPECT_NE(rest.err.find("done: 2 steps in"), std::string::npos) << rest.err;
    for (const std::string& name : {first, std::string("learning_rate=5e-3")})
      EXPECT_EQ(info(scratch_, folder(name)).at("step"), steps) << name;
  }
}

TEST_F(SweepTest, ARunThatFailsIsNotedAndTheOthersAreDone) {
  const std::string rates = "optimizer.learning_rate=1e30,1e-3 train.max_steps=15 --json ";
  for (const int ranks : {1, 2}) {
    if (ranks > 1 && !has_mpirun()) GTEST_SKIP() << "this build has no MPI: only one rank was tried";
    std::filesystem::remove_all(scratch_ / "sweep");
    const Outcome outcome = run(scratch_, sweep(rates), {.ranks = ranks});
    EXPECT_EQ(outcome.status, 1) << outcome.err;
    ASSERT_EQ(outcome.errors().size(), 1u) << outcome.err;
    EXPECT_NE(outcome.errors()[0].find("1 of 2 runs failed"), std::string::npos) << outcome.err;
    const nlohmann::json runs = nlohmann::json::parse(outcome.out).at("runs");
    ASSERT_EQ(runs.size(), 2u);
    EXPECT_EQ(runs[0].at("name"), "learning_rate=1e-3");
    EXPECT_EQ(runs[0].at("step"), 15);
    EXPECT_EQ(runs[1].at("status"), "failed");
    EXPECT_NE(runs[1].at("error").get<std::string>().find("no direction had a finite loss"),
              std::string::npos);
  }
  std::filesystem::remove_all(scratch_ / "sweep");
  EXPECT_EQ(run(scratch_, sweep(rates) + "--stop-on-error").status, 1);
  EXPECT_FALSE(std::filesystem::exists(folder("learning_rate=1e-3")));
}

TEST_F(SweepTest, RanksRunItTogether) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI: there is one rank";
  ASSERT_EQ(run(scratch_, sweep(grid)).status, 0);
  const std::string low = hash_of(scratch_, folder("learning_rate=1e-3"));
  const std::string high = hash_of(scratch_, folder("learning_rate=5e-2"));
  const Outcome outcome = run(scratch_, sweep(grid) + "--overwrite", {.ranks = 2});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("2 runs by eval_accuracy"), std::string::npos) << outcome.out;
  EXPECT_EQ(hash_of(scratch_, folder("learning_rate=1e-3")), low);
  EXPECT_EQ(hash_of(scratch_, folder("learning_rate=5e-2")), high);
}

TEST_F(SweepTest, WhatNoRunCanHaveIsSaidBeforeOneBegins) {
  const auto expect_usage = [&](const std::string& more, const std::string& part) {
    const Outcome outcome = run(scratch_, sweep(more));
    EXPECT_EQ(outcome.status, 2) << more << outcome.err;
    ASSERT_EQ(outcome.errors().size(), 1u) << outcome.err;
    EXPECT_NE(outcome.errors()[0].find(part), std::string::npos) << outcome.err;
    EXPECT_FALSE(std::filesystem::exists(scratch_ / "sweep"));
  };
  expect_usage("optimizer.learning_rate=1e-3,-1", "learning_rate");
  expect_usage("optimizer.learning_rates=1e-3,1", "nearest");
  expect_usage("optimizer.learning_rate=1e-3,0.001", "the same run");
  expect_usage("train.seed=3", "several values");
  const std::string less = "train.max_steps=1 data.max_train_examples=4 ";
  ASSERT_EQ(run(scratch_, "train" + config() + less).status, 0);
  const Outcome outcome = run(scratch_, sweep(less + "train.seed=1,2"));
  EXPECT_EQ(outcome.status, 2);
  EXPECT_NE(outcome.err.find("holds a run"), std::string::npos) << outcome.err;
}

}  // namespace
}  // namespace mezzo::test
