// The best step of a run as a user finds it: its adapter, what says so, and an early end; the same after any
// crash and on any number of ranks.
#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "mezzo/io/record_file.h"
#include "program.h"

namespace mezzo::test {
namespace {

constexpr int steps = 12;

class BestTest : public ::testing::Test {
 protected:
  BestTest() {
    std::istringstream lines(read_all(MEZZO_SOURCE_DIR "/configs/quickstart/validation.jsonl"));
    std::string few;
    std::string line;
    for (int i = 0; i < 40 && std::getline(lines, line); ++i) few += line + '\n';
    scratch_.write("few.jsonl", few);
  }

  std::string at(const std::string& path) const { return scratch_ / path; }

  /// A run with a learning rate that is too large for it, so that its best step is neither its first nor its
  /// last one. What `more` sets is left to it.
  std::string train(const std::string& name, const std::string& more = "") {
    std::string command = fmt::format(
        "train configs/quickstart.yaml train.output_dir={} train.batch_size=6 zo.directions=3 "
        "data.validation={} data.max_train_examples=40 runtime.device=cpu runtime.threads=1 {}",
        at(name), at("few.jsonl"), more);
    for (const std::string other :
         {"optimizer.learning_rate=0.01", "zo.normalize=none", "optimizer.lr_scheduler_type=constant",
          "train.batch_slices=2", "train.max_steps=12", "train.eval_steps=2", "train.save_steps=5",
          "train.save_total_limit=1", "train.metric_for_best_model=eval_loss"}) {
      if (more.find(other.substr(0, other.find('='))) == std::string::npos) command += " " + other;
    }
    return command;
  }
  Outcome to_the_end(const std::string& name, const std::string& more = "", const Launch& launch = {}) {
    Outcome outcome = run(scratch_, train(name, more), launch);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return outcome;
  }

  /// The losses of a run's evaluations, each step once.
  std::map<int, double> evaluations(const std::string& name) {
    std::map<int, double> losses;
    std::istringstream metrics(read_all(at(name + "/metrics.jsonl")));
    for (std::string line; std::getline(metrics, line);) {
      const nlohmann::json values = nlohmann::json::parse(line);
      if (!values.contains("eval_loss")) continue;
      EXPECT_TRUE(losses.emplace(values.at("step").get<int>(), values.at("eval_loss").get<double>()).second);
    }
    return losses;
  }
  static int best_of(const std::map<int, double>& losses) {
    int best = losses.begin()->first;
    for (const auto& [step, loss] : losses) {
      if (loss < losses.at(best)) best = step;
    }
    return best;
  }
  std::string snapshot(const std::string& name, int step) const {
    return at(fmt::format("{}/snapshots/step-{}.h5", name, step));
  }
  nlohmann::json trainer_state(const std::string& adapter) const {
    return nlohmann::json::parse(read_all(adapter + "/trainer_state.json"));
  }
  std::string replayed_hash(const std::string& name, int step) {
    const std::string target = at(fmt::format("{}-replayed-{}", name, step));
    const Outcome outcome =
        run(scratch_, fmt::format("replay {} --step {} --adapter {} --overwrite", at(name), step, target));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return hash_of(scratch_, target);
  }
  /// That the run has ended with its best step, and everything says so.
  void expect_best(const std::string& name, int best, int last) {
    const nlohmann::json of_run = info(scratch_, at(name));
    EXPECT_EQ(of_run.at("step"), last);
    EXPECT_EQ(of_run.at("best_step"), best);
    EXPECT_EQ(of_run.at("metric_for_best_model"), "eval_loss");
    EXPECT_EQ(of_run.at("best_metric"), evaluations(name).at(best));
    const nlohmann::json of_adapter = info(scratch_, at(name + "/adapter"));
    EXPECT_EQ(of_adapter.at("step"), best);
    EXPECT_EQ(of_adapter.at("trainables_sha256"), replayed_hash(name, best));
    EXPECT_EQ(trainer_state(at(name + "/adapter")).at("best_global_step"), best);
    EXPECT_EQ(hash_of(scratch_, snapshot(name, best)), of_adapter.at("trainables_sha256"));
    EXPECT_EQ(hash_of(scratch_, snapshot(name, last)), of_run.at("trainables_sha256"));
  }

  ScratchFolder scratch_;
};

TEST_F(BestTest, TheAdapterIsOfTheBestStepAndNamesIt) {
  const Outcome outcome = to_the_end("run");
  const int best = best_of(evaluations("run"));
  ASSERT_GT(best, 0);
  ASSERT_LT(best, 8);
  expect_best("run", best, steps);
  EXPECT_NE(outcome.err.find(fmt::format("of step {}, the best with eval_loss", best)), std::string::npos)
      << outcome.err;
  // One snapshot is kept besides it.
  std::size_t snapshots = 0;
  for (const auto& entry : std::filesystem::directory_iterator(at("run/snapshots")))
    snapshots += entry.path().extension() == ".h5" ? 1 : 0;
  EXPECT_EQ(snapshots, 2u);

  // An export takes it too, from the run and without its snapshots.
  const std::string expected = hash_of(scratch_, at("run/adapter"));
  for (const bool with_snapshots : {true, false}) {
    if (!with_snapshots) std::filesystem::remove_all(at("run/snapshots"));
    const Outcome exported =
        run(scratch_, fmt::format("export {} --adapter {} --overwrite", at("run"), at("exported")));
    EXPECT_EQ(exported.status, 0) << exported.err;
    EXPECT_EQ(hash_of(scratch_, at("exported")), expected);
    EXPECT_EQ(trainer_state(at("exported")), trainer_state(at("run/adapter")));
  }
  // An adapter that is of no run says nothing of a step, whatever lay there before.
  std::filesystem::remove(at("run/adapter/trainer_state.json"));
  EXPECT_EQ(
      run(scratch_, fmt::format("export {} --adapter {} --overwrite", at("run/adapter"), at("exported")))
          .status,
      0);
  EXPECT_TRUE(info(scratch_, at("exported")).at("step").is_null());
}

TEST_F(BestTest, TheLastStepIsTheResultWhereThatIsAsked) {
  to_the_end("run", "train.load_best_model_at_end=false");
  const nlohmann::json of_run = info(scratch_, at("run"));
  EXPECT_FALSE(of_run.contains("best_step"));
  EXPECT_EQ(info(scratch_, at("run/adapter")).at("step"), steps);
  EXPECT_EQ(hash_of(scratch_, at("run/adapter")), of_run.at("trainables_sha256"));
  // It may be decided anew, and then the best step is made again from the trajectory.
  const int best = best_of(evaluations("run"));
  EXPECT_FALSE(std::filesystem::exists(snapshot("run", best)));
  to_the_end("run", "train.load_best_model_at_end=true");
  expect_best("run", best, steps);
}

TEST_F(BestTest, TheFirstStepIsTheBestOfARunThatOnlyLoses) {
  to_the_end("run", "optimizer.learning_rate=0.03");
  ASSERT_EQ(best_of(evaluations("run")), 0);
  EXPECT_EQ(info(scratch_, at("run")).at("best_step"), 0);
  EXPECT_EQ(info(scratch_, at("run/adapter")).at("step"), 0);
  EXPECT_EQ(hash_of(scratch_, at("run/adapter")), replayed_hash("run", 0));
  EXPECT_FALSE(std::filesystem::exists(snapshot("run", 0)));
  const Outcome again = to_the_end("run", "optimizer.learning_rate=0.03");
  EXPECT_NE(again.err.find("has finished its 12 steps; the adapter is in"), std::string::npos) << again.err;
}

TEST_F(BestTest, KilledAtAnyMomentItFindsTheSameBest) {
  double length[3] = {0.0, to_the_end("whole").seconds, 0.0};
  if (has_mpirun()) length[2] = to_the_end("whole-2", "", {.ranks = 2}).seconds;
  const std::map<int, double> expected = evaluations("whole");
  const int best = best_of(expected);
  const std::string hash = hash_of(scratch_, at("whole/adapter"));
  for (int kill = 0; kill < 8; ++kill) {
    const std::string name = fmt::format("killed-{}", kill);
    const int ranks = has_mpirun() ? 1 + kill % 2 : 1;
    run(scratch_, train(name), {.ranks = ranks, .kill_after = length[ranks] * (kill + 1) / 9.0});
    to_the_end(name, "", {.ranks = has_mpirun() ? 3 - ranks : 1});
    EXPECT_EQ(evaluations(name), expected) << kill;
    expect_best(name, best, steps);
    EXPECT_EQ(hash_of(scratch_, at(name + "/adapter")), hash) << kill;
  }
}

TEST_F(BestTest, WhatIsMissingOfTheEndIsMadeAgain) {
  to_the_end("run");
  const int best = best_of(evaluations("run"));
  const auto spoil = [&](const std::function<void()>& harm) {
    harm();
    const Outcome outcome = to_the_end("run");
    EXPECT_EQ(outcome.err.find("has finished"), std::string::npos) << outcome.err;
    expect_best("run", best, steps);
    EXPECT_NE(to_the_end("run").err.find("has finished"), std::string::npos);
  };
  spoil([&] { std::filesystem::remove_all(at("run/adapter")); });
  spoil([&] { std::filesystem::remove(at("run/adapter/trainer_state.json")); });
  spoil([&] { std::filesystem::remove(snapshot("run", best)); });
  spoil([&] { write_file(snapshot("run", best), "damaged"); });
  spoil([&] {  // the adapter of another step
    run(scratch_, fmt::format("replay {} --adapter {} --overwrite", at("run"), at("run/adapter")));
  });
}

TEST_F(BestTest, AnEvaluationThatIsLostIsNotTheBest) {
  to_the_end("run");
  std::map<int, double> left = evaluations("run");
  const int best = best_of(left);
  std::string metrics = read_all(at("run/metrics.jsonl"));
  const std::size_t line = metrics.find(fmt::format("\"step\":{},\"epoch\"", best));
  ASSERT_NE(line, std::string::npos);
  metrics[metrics.find("eval_loss", line) - 2] = '#';
  write_file(at("run/metrics.jsonl"), metrics + "{\"step\": 1");
  left.erase(best);
  const int next = best_of(left);
  ASSERT_GT(next, 0);
  const Outcome outcome = to_the_end("run");
  EXPECT_NE(outcome.err.find("metrics.jsonl: 2 lines removed"), std::string::npos) << outcome.err;
  EXPECT_EQ(evaluations("run"), left);
  expect_best("run", next, steps);
}

TEST_F(BestTest, GoingBackFindsTheBestOfBefore) {
  to_the_end("run");
  const int back = best_of(evaluations("run")) - 2;
  ASSERT_GT(back, 0);
  const std::string shorter = fmt::format("train.max_steps={}", back);
  to_the_end("short", shorter);
  const int best = best_of(evaluations("short"));
  ASSERT_FALSE(std::filesystem::exists(snapshot("run", best)));
  for (const char* end : {"", ".sha256"})
    std::filesystem::copy(snapshot("short", back) + end, snapshot("run", back) + end);
  to_the_end("run",
             fmt::format("{} train.resume_from_checkpoint={} --overwrite", shorter, snapshot("run", back)));
  expect_best("run", best, back);
  EXPECT_EQ(hash_of(scratch_, at("run/adapter")), hash_of(scratch_, at("short/adapter")));
}

TEST_F(BestTest, ARunWithoutBetterEvaluationsEndsEarly) {
  const std::string patient = "train.early_stopping_patience=2";
  const Outcome outcome = to_the_end("run", patient);
  const std::map<int, double> losses = evaluations("run");
  const int best = best_of(losses);
  const int last = best + 4;
  ASSERT_GT(best, 0);
  ASSERT_LT(last, steps);
  expect_best("run", best, last);
  EXPECT_EQ(losses.rbegin()->first, last);
  EXPECT_NE(outcome.err.find("the run ends early"), std::string::npos) << outcome.err;
  const Outcome again = to_the_end("run", patient);
  EXPECT_NE(again.err.find(fmt::format("has finished its {} steps, for want", last)), std::string::npos)
      << again.err;

  // Killed before its end it ends there too, on other ranks.
  std::filesystem::copy(at("run"), at("killed"), std::filesystem::copy_options::recursive);
  std::filesystem::remove_all(at("killed/adapter"));
  to_the_end("killed", patient, {.ranks = has_mpirun() ? 2 : 1});
  expect_best("killed", best, last);
  // Killed before its last evaluation it makes that.
  std::filesystem::copy(at("run"), at("earlier"), std::filesystem::copy_options::recursive);
  std::string metrics = read_all(at("earlier/metrics.jsonl"));
  metrics.erase(metrics.rfind('\n', metrics.size() - 2) + 1);
  write_file(at("earlier/metrics.jsonl"), metrics);
  to_the_end("earlier", patient, {.ranks = has_mpirun() ? 2 : 1});
  EXPECT_EQ(evaluations("earlier"), losses);
  expect_best("earlier", best, last);

  // With more patience it goes on as one that never ended early.
  to_the_end("run", "train.early_stopping_patience=3");
  const int later = info(scratch_, at("run")).at("step").get<int>();
  EXPECT_GT(later, last);
  to_the_end("patient", "train.early_stopping_patience=3");
  EXPECT_EQ(info(scratch_, at("patient")).at("step"), later);
  EXPECT_EQ(hash_of(scratch_, at("patient")), hash_of(scratch_, at("run")));
  EXPECT_EQ(hash_of(scratch_, at("patient/adapter")), hash_of(scratch_, at("run/adapter")));
}

TEST_F(BestTest, TwoRanksEndEarlyTogether) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  to_the_end("one", "train.early_stopping_patience=2");
  to_the_end("two", "train.early_stopping_patience=2", {.ranks = 2});
  EXPECT_EQ(evaluations("two"), evaluations("one"));
  EXPECT_EQ(hash_of(scratch_, at("two")), hash_of(scratch_, at("one")));
  EXPECT_EQ(hash_of(scratch_, at("two/adapter")), hash_of(scratch_, at("one/adapter")));
}

// A run that an earlier version began ends as that version would have ended it.
TEST_F(BestTest, ARunWhoseRecordLacksTheKeysTakesItsLastStep) {
  const std::string command = train("run");
  EXPECT_EQ(run(scratch_, command).status, 0);
  std::filesystem::rename(at("run/trajectory"), at("trajectory"));
  RecordReader records(at("trajectory"));
  const std::span<const std::byte> header = records.header();
  nlohmann::json json =
      nlohmann::json::parse(std::string(reinterpret_cast<const char*>(header.data()), header.size()));
  std::erase_if(json["settings"].get_ref<nlohmann::json::array_t&>(), [](const nlohmann::json& entry) {
    const auto key = entry[0].get<std::string>();
    return key == "train.load_best_model_at_end" || key == "train.metric_for_best_model" ||
           key == "train.early_stopping_patience";
  });
  const std::string text = json.dump();
  RecordWriter writer = RecordWriter::create(at("run/trajectory"), std::as_bytes(std::span(text)));
  while (const auto payload = records.next()) writer.append(*payload);
  std::filesystem::remove_all(at("run/adapter"));
  std::filesystem::remove_all(at("run/snapshots"));
  const Outcome outcome = run(scratch_, command);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("train.load_best_model_at_end = false"), std::string::npos) << outcome.err;
  EXPECT_EQ(hash_of(scratch_, at("run/adapter")), hash_of(scratch_, at("run")));
  EXPECT_EQ(info(scratch_, at("run/adapter")).at("step"), steps);
}

TEST_F(BestTest, AMetricThatEvaluationsLackIsRefused) {
  for (const char* verb : {"train", "validate"}) {
    std::string command = train("run", "train.metric_for_best_model=bleu");
    command.replace(0, 5, verb);
    const Outcome outcome = run(scratch_, command);
    EXPECT_EQ(outcome.status, 2) << outcome.err;
    ASSERT_EQ(outcome.errors().size(), 1u) << outcome.err;
    EXPECT_NE(outcome.errors()[0].find("found \"bleu\", expected a metric of the task's evaluations: "
                                       "eval_accuracy, eval_f1, eval_loss"),
              std::string::npos)
        << outcome.err;
  }
}

}  // namespace
}  // namespace mezzo::test
