// Data files as a user has them: any format, several files, a part held out; the same run however it is cut.
#include <gtest/gtest.h>

#include <sstream>

#include "compressed.h"
#include "program.h"

namespace mezzo::test {
namespace {

class DataTest : public ::testing::Test {
 protected:
  DataTest() {
    std::istringstream lines(read_all(MEZZO_SOURCE_DIR "/configs/quickstart/train.jsonl"));
    std::string line;
    for (int i = 0; i < 60 && std::getline(lines, line); ++i) records_.push_back(nlohmann::json::parse(line));
    scratch_.write("a.jsonl", lines_of(0, 20));
    scratch_.write("b.jsonl", lines_of(20, 50));
  }

  std::string lines_of(std::size_t begin, std::size_t end) const {
    std::string text;
    for (std::size_t i = begin; i < end; ++i) text += records_[i].dump() + '\n';
    return text;
  }
  std::string at(const std::string& name) const { return scratch_ / name; }
  std::string command(const std::string& verb, const std::string& name, const std::string& more) const {
    return fmt::format(
        "{} configs/quickstart.yaml train.output_dir={} train.batch_size=6 train.batch_slices=2 "
        "zo.directions=2 zo.normalize=none optimizer.lr_scheduler_type=constant optimizer.learning_rate=3e-3 "
        "train.eval_steps=3 train.save_steps=2 runtime.device=cpu runtime.threads=1 {}",
        verb, at(name), more);
  }
  Outcome good(const std::string& arguments, const Launch& launch = {}) {
    Outcome outcome = run(scratch_, arguments, launch);
    EXPECT_EQ(outcome.status, 0) << arguments << "\n" << outcome.err;
    return outcome;
  }
  std::string mixed(const std::string& weight) const {
    return fmt::format(
        "'data.train=[{{path: {}, weight: {}}}, {{path: {}, weight: 1}}]' data.validation=null "
        "data.validation_fraction=0.2 ",
        at("a.jsonl"), weight, at("b.jsonl"));
  }

  ScratchFolder scratch_;
  std::vector<nlohmann::json> records_;
};

TEST_F(DataTest, EachFormatIsTheSameRun) {
  nlohmann::json list = nlohmann::json::array();
  std::string comma = "label,sentence\r\n";
  std::string tab = "sentence\tlabel\n";
  for (std::size_t i = 0; i < 20; ++i) {
    const auto text = records_[i].at("sentence").get<std::string>();
    const std::string label = records_[i].at("label").dump();
    ASSERT_EQ(text.find_first_of("\t\""), text.npos);
    list.push_back(records_[i]);
    comma += label + ",\"" + text + "\"\r\n";
    tab += text + '\t' + label + '\n';
  }
  scratch_.write("a.json", list.dump(2));
  scratch_.write("object.json", nlohmann::json({{"version", "1.0"}, {"data", list}}).dump());
  scratch_.write("a.csv", comma);
  scratch_.write("a.tsv", tab);
  scratch_.write("a.jsonl.gz", gzip(lines_of(0, 20)));
  scratch_.write("a.csv.zst", zstd(comma));
  std::string expected;
  for (const char* file : {"a.jsonl", "a.json", "object.json", "a.csv", "a.tsv", "a.jsonl.gz", "a.csv.zst"}) {
    const std::string name = std::string("run-") + file;
    good(command("train", name, "train.max_steps=2 data.validation=null data.train=" + at(file)));
    const std::string hash = hash_of(scratch_, at(name + "/adapter"));
    if (expected.empty()) expected = hash;
    EXPECT_EQ(hash, expected) << file;
  }
  const Outcome bad = run(scratch_, command("train", "bad", "data.format=csv data.train=" + at("a.jsonl")));
  EXPECT_EQ(bad.status, 1);
  ASSERT_EQ(bad.errors().size(), 1u) << bad.err;
  EXPECT_NE(bad.err.find("a.jsonl: this is JSON lines, expected CSV (data.format: csv)"), std::string::npos)
      << bad.err;
}

TEST_F(DataTest, SeveralFilesAndAPartHeldOut) {
  const Outcome whole = good(command("train", "whole", mixed("3") + "train.max_steps=6"));
  EXPECT_NE(whole.err.find("40 training examples, 10 validation examples"), std::string::npos) << whole.err;
  EXPECT_NE(whole.err.find("a.jsonl: "), std::string::npos) << whole.err;
  EXPECT_NE(whole.err.find("examples, 75.0 % of the stream"), std::string::npos) << whole.err;
  const std::string expected = hash_of(scratch_, at("whole/snapshots/step-6.h5"));
  // Cut in two, and on two ranks.
  good(command("train", "cut", mixed("3") + "train.max_steps=3"));
  good(command("train", "cut", mixed("3") + "train.max_steps=6"));
  EXPECT_EQ(hash_of(scratch_, at("cut/snapshots/step-6.h5")), expected);
  if (has_mpirun()) {
    good(command("train", "two", mixed("3") + "train.max_steps=6"), {.ranks = 2});
    EXPECT_EQ(hash_of(scratch_, at("two/snapshots/step-6.h5")), expected);
  }
  // An evaluation reads what the run held out.
  const Outcome eval =
      good(command("eval", "whole", mixed("3") + "--json --snapshot " + at("whole/snapshots/step-6.h5")));
  const nlohmann::json result = nlohmann::json::parse(eval.out);
  EXPECT_EQ(result.at("examples"), 10);
  std::istringstream metrics(read_all(at("whole/metrics.jsonl")));
  nlohmann::json last;
  for (std::string line; std::getline(metrics, line);) {
    const nlohmann::json entry = nlohmann::json::parse(line);
    if (entry.contains("eval_loss")) last = entry;
  }
  EXPECT_EQ(last.at("step"), 6);
  EXPECT_EQ(last.at("eval_loss"), result.at("loss"));
}

TEST_F(DataTest, WhatIsReadIsTheRunsIdentity) {
  good(command("train", "run", mixed("3") + "train.max_steps=2"));
  const auto refused = [&](const std::string& more, const std::string& key) {
    const Outcome outcome = run(scratch_, command("train", "run", more + " train.max_steps=3"));
    EXPECT_EQ(outcome.status, 2) << outcome.err;
    ASSERT_EQ(outcome.errors().size(), 1u) << outcome.err;
    EXPECT_NE(outcome.err.find("holds another run: " + key + " is "), std::string::npos) << outcome.err;
  };
  refused(mixed("2"), "data.train");
  std::string other = mixed("3");
  refused(other.replace(other.find("0.2"), 3, "0.3"), "data.validation_fraction");
  refused(mixed("3") + "data.format=jsonl", "data.format");
  // Files are what they hold, wherever they lie.
  std::filesystem::rename(at("a.jsonl"), at("moved.jsonl"));
  std::string moved = mixed("3");
  moved.replace(moved.find("a.jsonl"), 7, "moved.jsonl");
  good(command("train", "run", moved + "train.max_steps=3"));
  // And a key that is left out keeps the run's value.
  const std::string plain = "data.validation=null train.max_steps=4 'data.train=" +
                            moved.substr(moved.find('['), moved.find(']') - moved.find('[') + 1) + "'";
  EXPECT_NE(good(command("train", "run", plain)).err.find("validation examples"), std::string::npos);
  scratch_.write("moved.jsonl", lines_of(0, 19));
  refused(moved, "data.train");
}

TEST_F(DataTest, ValidationExamplesThatAreTrainingExamplesAreCounted) {
  const auto warnings = [&](const std::string& verb, const std::string& validation) {
    const Outcome outcome =
        good(command(verb, "run-" + validation,
                     (verb == "train" ? "train.max_steps=1 " : "") + ("data.train=" + at("a.jsonl")) +
                         " data.validation=" + at(validation)));
    const std::size_t begin = outcome.err.find("mezzo: warning: data.validation");
    return begin == std::string::npos ? "" : outcome.err.substr(begin, outcome.err.find('\n', begin) - begin);
  };
  scratch_.write("some.jsonl", lines_of(15, 25));
  for (const char* verb : {"validate", "train"}) {
    EXPECT_EQ(warnings(verb, "b.jsonl"), "");
    EXPECT_NE(warnings(verb, "some.jsonl").find("5 of 10 validation examples are training examples too"),
              std::string::npos);
    EXPECT_NE(warnings(verb, "a.jsonl").find("all of 20 validation examples"), std::string::npos);
  }
}

}  // namespace
}  // namespace mezzo::test
