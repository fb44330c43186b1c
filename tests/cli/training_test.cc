// Training as a user judges it: it learns, and says so when it does not.
#include <gtest/gtest.h>

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
      "zo.directions=2 train.batch_size=16 optimizer.learning_rate=0.1 data.validation=null train.max_steps=";
  const Outcome outcome = train("run", more + "22");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(count(outcome.err, "the run diverges"), 1u) << outcome.err;
  // What the first process saw is known to the second, whose own steps would be too few.
  const Outcome again = train("run", more + "24");
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(count(again.err, "the run diverges"), 1u) << again.err;
}

TEST_F(TrainingTest, SoIsOneThatItsEvaluationsShow) {
  const Outcome outcome = train("run",
                                "zo.directions=2 train.batch_size=8 optimizer.learning_rate=0.1 "
                                "train.max_steps=10 train.eval_steps=10");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(count(outcome.err, "the run diverges"), 1u) << outcome.err;
}

}  // namespace
}  // namespace mezzo::test
