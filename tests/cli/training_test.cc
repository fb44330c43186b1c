// Training as a user judges it: it learns, and says so when it does not.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <sstream>

#include "program.h"

namespace mezzo::test {
namespace {

class TrainingTest : public ::testing::Test {
 protected:
  Outcome train(const std::string& name, const std::string& more) {
    return run(scratch_,
               fmt::format("train configs/quickstart.yaml train.output_dir={} runtime.device=cpu {}",
                           scratch_ / name, more));
  }
  /// A folder with the embedded model, whose last weight is not a number.
  std::string model_with_nan() {
    std::string folder = scratch_ / "model";
    std::filesystem::copy(MEZZO_SOURCE_DIR "/configs/quickstart/llama2m", folder);
    std::string weights = read_all(folder + "/model.safetensors");
    weights.replace(weights.size() - 4, 4, 4, '\xff');  // NaN in fp32, bf16 and fp16
    std::filesystem::remove(folder + "/model.safetensors");
    write_file(folder + "/model.safetensors", weights);
    return folder;
  }
  static std::size_t count(const std::string& text, const std::string& part) {
    std::size_t times = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++times;
    return times;
  }

  ScratchFolder scratch_;
};

TEST_F(TrainingTest, TheQuickstartLearns) {
  const Outcome outcome = train("run", "train.max_steps=40 train.eval_steps=40");
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  std::istringstream metrics(read_all(scratch_ / "run/metrics.jsonl"));
  std::map<int, double> accuracy;
  for (std::string line; std::getline(metrics, line);) {
    const nlohmann::json values = nlohmann::json::parse(line);
    if (values.contains("eval_accuracy"))
      accuracy[values.at("step").get<int>()] = values.at("eval_accuracy").get<double>();
  }
  EXPECT_LT(accuracy.at(0), 0.75);
  EXPECT_GT(accuracy.at(40), 0.85);
  EXPECT_EQ(outcome.err.find("warning"), std::string::npos) << outcome.err;
}

// The limit is made of losses that every rank has, and the trajectory holds the rate that it led to.
TEST_F(TrainingTest, AStepLimitCutsTheRateExactly) {
  const std::string limited =
      "zo.directions=2 zo.normalize=zscore optimizer.lr_scheduler_type=linear train.batch_size=6 "
      "train.batch_slices=2 train.logging_steps=1 train.save_steps=3 data.validation=null runtime.threads=1 ";
  const auto rates_of = [&](const std::string& name) {
    std::vector<double> rates;
    std::istringstream metrics(read_all(scratch_ / (name + "/metrics.jsonl")));
    for (std::string line; std::getline(metrics, line);) {
      const nlohmann::json values = nlohmann::json::parse(line);
      if (values.contains("learning_rate")) rates.push_back(values.at("learning_rate").get<double>());
    }
    return rates;
  };
  const auto run_of = [&](const std::string& name, const std::string& more, int ranks = 1) {
    const Outcome outcome =
        run(scratch_,
            fmt::format(
                "train configs/quickstart.yaml train.output_dir={} runtime.device=cpu train.max_steps=6 {}{}",
                scratch_ / name, limited, more),
            {.ranks = ranks});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return hash_of(scratch_, scratch_ / name);
  };
  const std::string expected = run_of("one", "zo.step_limit=0.15 optimizer.learning_rate=0.5");
  EXPECT_EQ(info(scratch_, scratch_ / "one").at("forwards"), 6 * 5);  // 6 steps of 2 pairs and one probe more
  const std::vector<double> cut = rates_of("one");
  ASSERT_EQ(cut.size(), 6u);
  for (std::size_t i = 0; i < 6; ++i) {
    const double scheduled = 0.5 * static_cast<double>(6 - i) / 6.0;
    EXPECT_GT(cut[i], 0.0);
    EXPECT_LT(cut[i], 0.9 * scheduled) << i;
  }
  // Where the schedule is below the limit it stays, and more of it is cut to the same.
  EXPECT_NE(run_of("low", "zo.step_limit=0.15 optimizer.learning_rate=1e-5"), expected);
  const std::vector<double> low = rates_of("low");
  ASSERT_EQ(low.size(), 6u);
  for (std::size_t i = 0; i < 6; ++i)
    EXPECT_NEAR(low[i], 1e-5 * static_cast<double>(6 - i) / 6.0, 1e-11) << i;
  run_of("high", "zo.step_limit=0.15 optimizer.learning_rate=5");
  EXPECT_NEAR(rates_of("high")[0], cut[0], 1e-5 * cut[0]);  // before steps differ by their rounding

  EXPECT_EQ(run_of("groups", "zo.step_limit=0.15 optimizer.learning_rate=0.5 zo.probes_per_forward=2"),
            expected);
  if (has_mpirun()) {
    for (const int ranks : {2, 4}) {
      EXPECT_EQ(
          run_of(fmt::format("ranks{}", ranks), "zo.step_limit=0.15 optimizer.learning_rate=0.5", ranks),
          expected);
    }
  }
  const Outcome replayed =
      run(scratch_, fmt::format("replay {} --model configs/quickstart/llama2m --adapter {}", scratch_ / "one",
                                scratch_ / "replayed"));
  EXPECT_EQ(replayed.status, 0) << replayed.err;
  EXPECT_EQ(hash_of(scratch_, scratch_ / "replayed"), expected);
  // From the snapshot in the middle.
  EXPECT_EQ(run_of("resumed", "zo.step_limit=0.15 optimizer.learning_rate=0.5 train.resume_from_checkpoint=" +
                                  (scratch_ / "one/snapshots/step-3.h5")),
            expected);
}

// At a tiny epsilon the losses' rounding is all that the curvature is made of, and holds the rate near 0.
TEST_F(TrainingTest, ACurvatureOfRoundingIsWarnedAboutOnce) {
  const std::string more = "zo.directions=4 train.batch_size=4 data.validation=null train.max_steps=";
  const Outcome rounding = train("rounding", more + "100 zo.epsilon=1e-7");
  EXPECT_EQ(rounding.status, 0) << rounding.err;
  EXPECT_EQ(count(rounding.err, "too rough to tell the curvature at zo.epsilon 1e-07"), 1u) << rounding.err;
  EXPECT_NE(rounding.err.find("warning: step 50: "), std::string::npos) << rounding.err;
  EXPECT_EQ(count(train("plain", more + "50").err, "too rough"), 0u);
}

constexpr const char* small = "zo.directions=2 train.batch_size=2 data.validation=null model.path=";

TEST_F(TrainingTest, AModelWithoutAFiniteLossIsAnError) {
  const std::string more = small + model_with_nan() + " train.max_steps=30";
  const Outcome outcome = train("run", more);
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  ASSERT_EQ(outcome.errors().size(), 1u) << outcome.err;
  EXPECT_NE(outcome.errors()[0].find("steps 1 to 10: no direction had a finite loss"), std::string::npos)
      << outcome.err;
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "run/adapter"));
  EXPECT_EQ(info(scratch_, scratch_ / "run").at("step"), 10);  // nothing of the run is lost
  const Outcome again = train("run", more);
  EXPECT_EQ(again.status, 1) << again.err;
  EXPECT_NE(again.err.find("going on from step 10"), std::string::npos) << again.err;
  EXPECT_NE(again.err.find("steps 1 to 11: no direction"), std::string::npos) << again.err;
}

TEST_F(TrainingTest, SoIsOneThatEndsBeforeItIsSure) {
  const std::string more = small + model_with_nan() + " train.max_steps=3";
  for (int time = 0; time < 2; ++time) {  // the second finds all steps done
    const Outcome outcome = train("run", more);
    EXPECT_EQ(outcome.status, 1) << outcome.err;
    ASSERT_EQ(outcome.errors().size(), 1u) << outcome.err;
    EXPECT_NE(outcome.errors()[0].find("steps 1 to 3: no direction"), std::string::npos) << outcome.err;
    EXPECT_FALSE(std::filesystem::exists(scratch_ / "run/adapter"));
  }
}

TEST_F(TrainingTest, SoIsItOnEveryRank) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  const Outcome outcome =
      run(scratch_,
          fmt::format("train configs/quickstart.yaml train.output_dir={} runtime.device=cpu {}{} "
                      "train.max_steps=12",
                      scratch_ / "run", small, model_with_nan()),
          {.ranks = 2});
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  EXPECT_EQ(outcome.errors().size(), 1u) << outcome.err;
  EXPECT_EQ(info(scratch_, scratch_ / "run").at("step"), 10);
}

TEST_F(TrainingTest, ARunThatDivergesIsWarnedAbout) {
  const std::string more =
      "zo.directions=2 train.batch_size=16 optimizer.learning_rate=0.1 data.validation=null "
      "zo.normalize=none optimizer.lr_scheduler_type=constant train.max_steps=";
  const Outcome outcome = train("run", more + "22");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(count(outcome.err, "the run diverges"), 1u) << outcome.err;
  // What the first process saw is known to the second, whose own steps would be too few.
  const Outcome again = train("run", more + "24");
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(count(again.err, "the run diverges"), 1u) << again.err;
}

TEST_F(TrainingTest, SoIsOneThatItsEvaluationsShow) {
  const Outcome outcome =
      train("run",
            "zo.directions=2 train.batch_size=8 optimizer.learning_rate=0.1 zo.step_limit=null "
            "train.max_steps=10 train.eval_steps=10");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(count(outcome.err, "the run diverges"), 1u) << outcome.err;
}

// ---- a learning rate for it
// ---------------------------------------------------------------------------------

constexpr const char* rates =
    "--lr-find --lr-find-min 1e-4 --lr-find-max 3 --lr-find-steps 30 --json zo.directions=2 "
    "train.batch_size=8 train.batch_slices=2 runtime.threads=1";

TEST_F(TrainingTest, ALearningRateIsRecommendedAndNothingWritten) {
  const Outcome outcome = train("run", rates);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const nlohmann::json found = nlohmann::json::parse(outcome.out);
  const nlohmann::json& tried = found.at("steps");
  ASSERT_GE(tried.size(), 10u);
  EXPECT_NEAR(tried[0].at("learning_rate").get<double>(), 1e-4, 1e-10);
  EXPECT_NEAR(tried[1].at("learning_rate").get<double>(), 1e-4 * std::pow(3e4, 1.0 / 29.0), 1e-10);
  const auto diverges = found.at("diverges_at").get<double>();
  EXPECT_GT(diverges, 3e-3);
  EXPECT_LE(diverges, 3.0);
  const auto least = found.at("least_at").get<double>();
  EXPECT_LT(least, diverges);
  EXPECT_NEAR(found.at("recommended_learning_rate").get<double>(), 0.1 * least, 0.005 * least);
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "run"));

  // Its first step is that of a run.
  const Outcome trained =
      train("run", "zo.directions=2 train.batch_size=8 train.batch_slices=2 train.max_steps=1");
  ASSERT_EQ(trained.status, 0) << trained.err;
  std::istringstream metrics(read_all(scratch_ / "run/metrics.jsonl"));
  for (std::string line; std::getline(metrics, line);) {
    const nlohmann::json values = nlohmann::json::parse(line);
    if (values.contains("loss")) {
      EXPECT_EQ(values.at("loss"), tried[0].at("loss"));
    }
  }
  // A run that is there is left alone, and a text says the same.
  const std::string before = read_all(scratch_ / "run/trajectory");
  std::string as_text = rates;
  as_text.replace(as_text.find("--json"), 6, "");
  const Outcome text = train("run", as_text);
  EXPECT_EQ(text.status, 0) << text.err;
  EXPECT_NE(text.out.find(fmt::format("optimizer.learning_rate={:.1e} is recommended",
                                      found.at("recommended_learning_rate").get<double>())),
            std::string::npos)
      << text.out;
  EXPECT_EQ(read_all(scratch_ / "run/trajectory"), before);
}

TEST_F(TrainingTest, SoItIsOnTwoRanks) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  const Outcome alone = train("run", rates);
  const Outcome two =
      run(scratch_,
          fmt::format("train configs/quickstart.yaml train.output_dir={} runtime.device=cpu {}",
                      scratch_ / "run", rates),
          {.ranks = 2});
  EXPECT_EQ(two.status, 0) << two.err;
  EXPECT_EQ(two.out, alone.out);
}

TEST_F(TrainingTest, RatesThatCannotBeTriedAreRefused) {
  for (const auto& [options, words] : {
           std::pair("--lr-find --lr-find-min 1e-2 --lr-find-max 1e-3", "expected less than --lr-find-max"),
           std::pair("--lr-find --lr-find-steps 5", "--lr-find-steps"),
           std::pair("--lr-find --lr-find-max inf", "--lr-find-max"),
           std::pair("--lr-find-max 1", "requires --lr-find"),
           std::pair("--json", "requires --lr-find"),
       }) {
    const Outcome outcome = train("run", options);
    EXPECT_EQ(outcome.status, 2) << options;
    ASSERT_EQ(outcome.errors().size(), 1u) << outcome.err;
    EXPECT_NE(outcome.errors()[0].find(words), std::string::npos) << outcome.err;
  }
  const Outcome outcome = train("run", std::string(rates) + " model.path=" + model_with_nan());
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  ASSERT_EQ(outcome.errors().size(), 1u) << outcome.err;
  EXPECT_NE(outcome.errors()[0].find("no direction had a finite loss"), std::string::npos) << outcome.err;
}

}  // namespace
}  // namespace mezzo::test
