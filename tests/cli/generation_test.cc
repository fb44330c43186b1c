// Generation tasks as their users see them: the same run on any number of ranks, after a kill and by replay;
// graders that fail; what evaluations and `generate` write.
#include <gtest/gtest.h>

#include <sstream>

#include "program.h"

namespace mezzo {
namespace {

using namespace test;

class GenerationTest : public ::testing::Test {
 protected:
  GenerationTest() {
    std::string records;
    for (const char* const start :
         {"The film", "A story of", "I", "What a", "They say that", "Never", "Once more"})
      records += fmt::format("{{\"prompt\": \"{}\", \"completion\": \" was good\"}}\n", start);
    write_file(scratch_ / "records.jsonl", records);
    // The more the question says, the more it is worth: a pure function of it.
    write_file(scratch_ / "grader.sh",
               "while read -r line; do sleep 0.02; echo \"{\\\"reward\\\": ${#line}}\"; done\n");
  }

  /// A config whose run is `name`, with `reward` and further lines under `train`.
  std::string config(const std::string& name, const std::string& reward, const std::string& train = "") {
    const std::string path = scratch_ / (name + ".yaml");
    write_file(path, fmt::format(R"(model: {{path: configs/quickstart/llama2m}}
data:
  train: {0}
  validation: {0}
  task:
    type: generation
    reward: {1}
generation: {{max_new_tokens: 6, temperature: 1, samples: 2, stop: ["a", " the"]}}
lora: {{r: 2}}
zo: {{directions: 3, epsilon: 0.05, normalize: zscore}}
optimizer: {{learning_rate: 0.02, lr_scheduler_type: constant}}
train: {{max_steps: 4, batch_size: 5, batch_slices: 2, eval_steps: 2, save_steps: 2, logging_steps: 1,
        load_best_model_at_end: false, output_dir: {2}{3}}}
runtime: {{device: cpu, threads: 1}}
)",
                                 scratch_ / "records.jsonl", reward, folder(name), train));
    return path;
  }
  std::string folder(const std::string& name) const { return scratch_ / ("run-" + name); }
  std::string program_reward(const std::string& more = "") const {
    return fmt::format("{{command: [sh, {}]{}}}", scratch_ / "grader.sh", more);
  }
  Outcome train(const std::string& path, const Launch& launch = {}, const std::string& more = "") {
    return run(scratch_, "train " + path + " " + more, launch);
  }

  ScratchFolder scratch_;
};

constexpr const char* by_length = "{type: length, target: 2}";

TEST_F(GenerationTest, RanksAndGroupsChangeNothing) {
  const Outcome one = train(config("one", by_length));
  ASSERT_EQ(one.status, 0) << one.err;
  const std::string want = hash_of(scratch_, folder("one"));
  ASSERT_EQ(train(config("grouped", by_length), {}, "zo.probes_per_forward=1").status, 0);
  EXPECT_EQ(hash_of(scratch_, folder("grouped")), want);
  ASSERT_EQ(train(config("threes", by_length), {}, "zo.probes_per_forward=3").status, 0);
  EXPECT_EQ(hash_of(scratch_, folder("threes")), want);
  if (!has_mpirun()) GTEST_SKIP() << "this build has no mpirun";
  for (const int ranks : {2, 4}) {
    const std::string name = fmt::format("ranks-{}", ranks);
    const Outcome several = train(config(name, by_length), {.ranks = ranks});
    ASSERT_EQ(several.status, 0) << several.err;
    EXPECT_EQ(hash_of(scratch_, folder(name)), want) << name;
  }
}

TEST_F(GenerationTest, GoesOnAfterAKillAndIsReplayedWithoutItsGrader) {
  const Outcome whole = train(config("whole", program_reward()));
  ASSERT_EQ(whole.status, 0) << whole.err;
  const std::string want = hash_of(scratch_, folder("whole"));

  const std::string path = config("killed", program_reward());
  const Outcome killed = train(path, {.kill_after = 0.5, .kill_once = folder("killed") + "/metrics.jsonl"});
  ASSERT_NE(killed.status, 0) << "the run was done before it was killed";
  const Outcome resumed = train(path);
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_EQ(hash_of(scratch_, folder("killed")), want);

  std::filesystem::remove(scratch_ / "grader.sh");
  const Outcome replayed =
      run(scratch_, fmt::format("replay {} --adapter {}", folder("whole"), scratch_ / "again"));
  ASSERT_EQ(replayed.status, 0) << replayed.err;
  EXPECT_EQ(hash_of(scratch_, scratch_ / "again"), want);
}

TEST_F(GenerationTest, MetricsHoldRewardsAndSamples) {
  const Outcome outcome = train(config("shown", program_reward(), ", log_samples: 2"));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("reward "), std::string::npos) << outcome.err;
  std::istringstream lines(read_all(folder("shown") + "/metrics.jsonl"));
  int steps = 0, evaluations = 0;
  for (std::string text; std::getline(lines, text);) {
    const nlohmann::json line = nlohmann::json::parse(text);
    if (line.contains("eval_reward")) {
      ++evaluations;
      EXPECT_EQ(line["eval_loss"], -line["eval_reward"].get<double>());
      ASSERT_EQ(line["samples"].size(), 2u);
      EXPECT_NE(line["samples"][0]["prompt"].get<std::string>().find("The film"), std::string::npos);
      EXPECT_GT(line["samples"][0]["reward"].get<double>(), 50.0);
    } else if (line.contains("loss")) {
      ++steps;
      EXPECT_DOUBLE_EQ(line["reward"].get<double>(), -line["loss"].get<double>());
      EXPECT_GE(line["reward_best"].get<double>(), line["reward"].get<double>());
      EXPECT_GT(line["reward_std"].get<double>(), 0.0);
    }
  }
  EXPECT_EQ(steps, 4);
  EXPECT_EQ(evaluations, 3);
}

TEST_F(GenerationTest, AGraderThatFailsStopsTheRunOrCostsItsDirection) {
  const std::string fails = "{command: [sh, -c, 'read line; exit 3'], restarts: 0, on_error: ";
  for (const int ranks : {1, has_mpirun() ? 2 : 1}) {
    const Outcome stopped = train(config(fmt::format("stop-{}", ranks), fails + "stop}"), {.ranks = ranks});
    EXPECT_EQ(stopped.status, 1) << stopped.err;
    ASSERT_EQ(stopped.errors().size(), 1u) << stopped.err;
    EXPECT_NE(stopped.errors()[0].find("data.task.reward"), std::string::npos) << stopped.errors()[0];
  }
  // Nobody has a reward: nothing is learned, which ends a run as losses that are not finite do.
  const Outcome dropped = train(config("drop", fails + "drop}"));
  EXPECT_EQ(dropped.status, 1) << dropped.err;
  EXPECT_NE(dropped.err.find("no direction had a finite loss"), std::string::npos) << dropped.err;
}

TEST_F(GenerationTest, EvalWritesWhatGenerateDoes) {
  const std::string path = config("evaluated", by_length);
  const Outcome evaluated =
      run(scratch_, fmt::format("eval {} --predictions {} --json", path, scratch_ / "predictions.jsonl"));
  ASSERT_EQ(evaluated.status, 0) << evaluated.err;
  const double reward = nlohmann::json::parse(evaluated.out).at("reward").get<double>();
  const Outcome generated = run(
      scratch_, fmt::format("generate configs/quickstart/llama2m --prompts {} --max-new-tokens 6 --stop a "
                            "--stop ' the' --device cpu",
                            scratch_ / "records.jsonl"));
  ASSERT_EQ(generated.status, 0) << generated.err;
  EXPECT_NE(generated.err.find("tokens/s"), std::string::npos) << generated.err;
  std::istringstream written(generated.out), graded(read_all(scratch_ / "predictions.jsonl"));
  double sum = 0.0;
  int count = 0;
  for (std::string line, other; std::getline(written, line); ++count) {
    ASSERT_TRUE(std::getline(graded, other));
    const nlohmann::json completion = nlohmann::json::parse(line);
    const nlohmann::json prediction = nlohmann::json::parse(other);
    EXPECT_EQ(completion["completion"], prediction["completion"]);
    EXPECT_EQ(completion["tokens"], prediction["tokens"]);
    sum += prediction["reward"].get<double>();
  }
  EXPECT_EQ(count, 7);
  EXPECT_NEAR(reward, sum / 7.0, 1e-12);
}

TEST_F(GenerationTest, SamplesOfAPromptDiffer) {
  const Outcome generated =
      run(scratch_,
          "generate configs/quickstart/llama2m --prompt 'The film' --samples 4 --temperature 1 --device cpu");
  ASSERT_EQ(generated.status, 0) << generated.err;
  std::istringstream lines(generated.out);
  std::vector<std::string> completions;
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json completion = nlohmann::json::parse(line);
    EXPECT_EQ(completion["sample"], completions.size());
    completions.push_back(completion["completion"].get<std::string>());
  }
  ASSERT_EQ(completions.size(), 4u);
  EXPECT_NE(completions[0], completions[1]);
}

TEST_F(GenerationTest, BadInputsAreNamed) {
  const auto expect_usage = [&](const Outcome& outcome, const std::string& word) {
    EXPECT_EQ(outcome.status, 2) << outcome.err;
    EXPECT_NE(outcome.err.find(word), std::string::npos) << outcome.err;
  };
  expect_usage(run(scratch_, "generate configs/quickstart/llama2m"), "--prompts");
  expect_usage(train(config("limited", by_length), {}, "zo.step_limit=0.1"), "zo.step_limit");
  write_file(scratch_ / "broken.jsonl", "{\"text\": \"x\"}\n");
  const Outcome broken = run(
      scratch_, fmt::format("generate configs/quickstart/llama2m --prompts {}", scratch_ / "broken.jsonl"));
  EXPECT_EQ(broken.status, 1);
  EXPECT_NE(broken.err.find("broken.jsonl:1"), std::string::npos) << broken.err;
}

}  // namespace
}  // namespace mezzo
