// mezzo eval: what it prints of a classification, and its predictions one by one.
#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "program.h"

namespace mezzo::test {
namespace {

using Json = nlohmann::json;

std::vector<Json> lines_of(const std::string& path) {
  std::vector<Json> lines;
  std::istringstream text(read_all(path));
  for (std::string line; std::getline(text, line);) lines.push_back(Json::parse(line));
  return lines;
}

class EvalTest : public ::testing::Test {
 protected:
  /// Evaluates the first 40 validation examples of the quickstart.
  Json evaluate(const std::string& predictions, int ranks) {
    std::istringstream all(read_all(MEZZO_SOURCE_DIR "/configs/quickstart/validation.jsonl"));
    std::string few;
    int count = 0;
    for (std::string line; count < 40 && std::getline(all, line); ++count) few += line + '\n';
    write_file(scratch_ / "few.jsonl", few);
    const Outcome outcome =
        run(scratch_,
            fmt::format("eval configs/quickstart.yaml data.validation={} --json --predictions {}",
                        scratch_ / "few.jsonl", scratch_ / predictions),
            {.ranks = ranks});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return Json::parse(outcome.out);
  }

  ScratchFolder scratch_;
};

TEST_F(EvalTest, PredictionsAddUpToTheScores) {
  const Json result = evaluate("alone.jsonl", 1);
  const std::vector<Json> predictions = lines_of(scratch_ / "alone.jsonl");
  ASSERT_EQ(predictions.size(), 40u);
  int correct = 0;
  std::map<std::string, int> predicted;
  for (std::size_t i = 0; i < predictions.size(); ++i) {
    const Json& one = predictions[i];
    EXPECT_EQ(one.at("example"), i);
    EXPECT_FALSE(one.at("prompt").get<std::string>().empty());
    ASSERT_EQ(one.at("scores").size(), 2u);
    const auto label = one.at("prediction").get<std::string>();
    EXPECT_EQ(label, one.at("scores")[1] > one.at("scores")[0] ? "1" : "0");
    ++predicted[label];
    correct += label == one.at("label") ? 1 : 0;
  }
  EXPECT_DOUBLE_EQ(result.at("accuracy"), correct / 40.0);
  double f1 = 0.0;
  int examples = 0;
  for (const Json& one : result.at("classes")) {
    EXPECT_EQ(one.at("predicted"), predicted[one.at("label")]);
    f1 += one.at("f1").get<double>() / 2.0;
    examples += one.at("examples").get<int>();
  }
  EXPECT_EQ(examples, 40);
  EXPECT_DOUBLE_EQ(result.at("f1"), f1);

  if (!has_mpirun()) return;
  EXPECT_EQ(evaluate("together.jsonl", 2), result);
  EXPECT_EQ(read_all(scratch_ / "together.jsonl"), read_all(scratch_ / "alone.jsonl"));
}

// Written answers are those of mezzo generate, and scored against every right one.
TEST_F(EvalTest, AnswersInItsOwnWords) {
  const std::vector<std::string> prompts = {"The film was", "the plot", "a"};
  std::string data;
  std::vector<std::string> written;
  for (const std::string& prompt : prompts) {
    const Outcome generated =
        run(scratch_,
            fmt::format("generate configs/quickstart/llama2m --max-new-tokens 4 --prompt '{}'", prompt));
    ASSERT_EQ(generated.status, 0) << generated.err;
    ASSERT_TRUE(generated.out.starts_with(prompt)) << generated.out;
    written.push_back(generated.out.substr(prompt.size(), generated.out.size() - prompt.size() - 1));
    const bool first = written.size() == 1;
    data +=
        Json{{"prompt", prompt}, {"completion", {" nonsense", first ? written[0] : " more"}}}.dump() + '\n';
  }
  write_file(scratch_ / "questions.jsonl", data);
  write_file(
      scratch_ / "config.yaml",
      fmt::format("model: {{path: {}/configs/quickstart/llama2m}}\ndata: {{validation: {}, task: {{type: "
                  "completion, append_eos: false}}}}\n",
                  MEZZO_SOURCE_DIR, scratch_ / "questions.jsonl"));
  const auto evaluate = [&](const std::string& name, const std::string& more, int ranks) {
    const Outcome outcome = run(scratch_,
                                fmt::format("eval {} --json --max-new-tokens 4 --predictions {} {}",
                                            scratch_ / "config.yaml", scratch_ / name, more),
                                {.ranks = ranks});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return outcome.status == 0 ? Json::parse(outcome.out) : Json();
  };
  const Json result = evaluate("alone.jsonl", "", 1);
  EXPECT_DOUBLE_EQ(result.at("exact_match"), 1.0 / 3.0);
  EXPECT_GE(result.at("token_f1"), result.at("exact_match"));
  EXPECT_TRUE(result.at("accuracy").is_null());
  const std::vector<Json> lines = lines_of(scratch_ / "alone.jsonl");
  ASSERT_EQ(lines.size(), 3u);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i].at("prediction"), written[i]);
    EXPECT_EQ(lines[i].at("exact_match"), i == 0);
  }
  // What stops an answer is no part of it.
  const std::string word = written[0].substr(written[0].find_last_not_of(' ') - 1, 2);
  static_cast<void>(evaluate("stopped.jsonl", "--stop '" + word + "'", 1));
  EXPECT_EQ(lines_of(scratch_ / "stopped.jsonl")[0].at("prediction"),
            written[0].substr(0, written[0].find(word)));
  if (!has_mpirun()) return;
  EXPECT_EQ(evaluate("together.jsonl", "", 2), result);
  EXPECT_EQ(read_all(scratch_ / "together.jsonl"), read_all(scratch_ / "alone.jsonl"));
}

TEST_F(EvalTest, PredictionsAreNotOverwritten) {
  write_file(scratch_ / "there.jsonl", "mine\n");
  const Outcome refused =
      run(scratch_, "eval configs/quickstart.yaml --predictions " + (scratch_ / "there.jsonl"));
  EXPECT_EQ(refused.status, 2);
  EXPECT_NE(refused.err.find("--overwrite"), std::string::npos) << refused.err;
  EXPECT_EQ(read_all(scratch_ / "there.jsonl"), "mine\n");
}

}  // namespace
}  // namespace mezzo::test
