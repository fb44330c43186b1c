// Bad input: one sentence that names the place, exit status 2 or 1 on all ranks, soon, and nothing lost.
#include <gtest/gtest.h>

#include <sstream>

#include "program.h"

namespace mezzo::test {
namespace {

// The promise is 5 s; the address sanitizer makes everything several times slower.
#if defined(__SANITIZE_ADDRESS__)
constexpr double soon = 20.0;
#else
constexpr double soon = 5.0;
#endif

class InputTest : public ::testing::Test {
 protected:
  std::string train(const std::string& more) {
    return fmt::format("train configs/quickstart.yaml train.output_dir={} train.max_steps=2 {}",
                       scratch_ / "run", more);
  }
  /// Expects one error line that holds all `parts`, and no run's folder.
  void expect_error(const Outcome& outcome, int status, const std::vector<std::string>& parts) {
    EXPECT_EQ(outcome.status, status) << outcome.err;
    ASSERT_EQ(outcome.errors().size(), 1u) << outcome.err;
    for (const std::string& part : parts) {
      EXPECT_NE(outcome.errors()[0].find(part), std::string::npos)
          << outcome.errors()[0] << "\nlacks: " << part;
    }
    EXPECT_LT(outcome.seconds, soon);
    EXPECT_FALSE(std::filesystem::exists(scratch_ / "run/trajectory"));
  }

  ScratchFolder scratch_;
};

TEST_F(InputTest, CommandLine) {
  expect_error(run(scratch_, "trian configs/quickstart.yaml"), 2, {"trian", "train"});
  expect_error(run(scratch_, "train"), 2, {"config", "--help"});
  expect_error(run(scratch_, "eval configs/quickstart.yaml --bogus"), 2, {"--bogus"});
  const std::string generate = "generate configs/quickstart/llama2m --prompt x ";
  expect_error(run(scratch_, generate + "--temperature nan"), 2, {"--temperature", "nan", "finite"});
  expect_error(run(scratch_, generate + "--seed -1"), 2, {"--seed", "-1", "whole number"});
  std::filesystem::create_directory_symlink(MEZZO_SOURCE_DIR "/configs/quickstart/llama2m",
                                            scratch_ / "latin-\xe9");
  EXPECT_EQ(info(scratch_, scratch_ / "latin-\xe9").at("kind"), "model");
  expect_error(run(scratch_, "info " + (scratch_ / "nowhere")), 1, {"nowhere", "adapter_config.json"});
  EXPECT_EQ(run(scratch_, "--help").status, 0);
  EXPECT_EQ(run(scratch_, "train --help").status, 0);
  EXPECT_TRUE(run(scratch_, "-V").out.starts_with("mezzo "));
  EXPECT_EQ(run(scratch_, "help train").out, run(scratch_, "train --help").out);
  EXPECT_NE(run(scratch_, "help").out.find("config-keys"), std::string::npos);
  expect_error(run(scratch_, "help trian"), 2, {"trian", "train"});
  expect_error(run(scratch_, "train configs/quickstart.yaml --quiet --verbose"), 2, {"--quiet", "--verbose"});
}

TEST_F(InputTest, EveryVerbHasAnExample) {
  const std::string list = run(scratch_, "help").out;
  std::istringstream lines(list.substr(list.find("Subcommands:")));
  std::string line;
  std::getline(lines, line);
  int verbs = 0;
  while (std::getline(lines, line) && line.starts_with("  ")) {
    if (line.starts_with("   ")) continue;  // a description goes on
    const std::string verb = line.substr(2, line.find(' ', 2) - 2);
    EXPECT_NE(run(scratch_, "help " + verb).out.find("\nExample: "), std::string::npos) << verb;
    ++verbs;
  }
  EXPECT_GE(verbs, 15);
}

TEST_F(InputTest, SaysAsMuchAsItIsAsked) {
  const std::string less = " data.validation=null data.max_train_examples=40 --overwrite ";
  const Outcome plain = run(scratch_, train(less));
  EXPECT_EQ(plain.status, 0) << plain.err;
  EXPECT_NE(plain.err.find("\n  train.max_steps: 2\n"), std::string::npos) << plain.err;
  EXPECT_EQ(plain.err.find("hash_steps"), std::string::npos) << "a default: " << plain.err;
  EXPECT_NE(plain.err.find("done: 2 steps in "), std::string::npos) << plain.err;
  EXPECT_EQ(plain.err.find("in all"), std::string::npos) << plain.err;
  EXPECT_NE(run(scratch_, train(less + "--show-config")).err.find("\n  hash_steps: 50\n"), std::string::npos);
  EXPECT_NE(run(scratch_, train(less + "-v")).err.find("the exchange"), std::string::npos);
  EXPECT_EQ(run(scratch_, train(less + "-q")).err, "");
}

TEST_F(InputTest, Config) {
  expect_error(run(scratch_, "train " + (scratch_ / "none.yaml")), 2, {"none.yaml"});
  expect_error(run(scratch_, train("zo.direction=3")), 2, {"direction", "zo.directions"});
  expect_error(run(scratch_, train("zo.epsilon=-1")), 2, {"zo.epsilon", "-1"});
  expect_error(run(scratch_, train("runtime.dtype=bf16 runtime.device=cpu")), 2, {"runtime.dtype", "cuda"});
  expect_error(run(scratch_, train("data.max_length=3")), 2, {"data.max_length"});
}

TEST_F(InputTest, ModelAndData) {
  expect_error(run(scratch_, train("model.path=" + (scratch_ / "nowhere"))), 1, {"nowhere"});
  write_file(scratch_ / "data.jsonl",
             "{\"sentence\": \"fine\", \"label\": 1}\n{\"sentence\": 3, \"label\": 1}\n");
  expect_error(run(scratch_, train("data.train=" + (scratch_ / "data.jsonl"))), 1,
               {"data.jsonl:2", "sentence", "string"});
  write_file(scratch_ / "data.jsonl", "{\"sentence\": \"fine\", \"label\": 7}\n");
  expect_error(run(scratch_, train("data.train=" + (scratch_ / "data.jsonl"))), 1,
               {"data.jsonl:1", "label", "7"});
  write_file(scratch_ / "data.jsonl", "{\"sentence\": \"fine\", \"label\": 1}\n\n{not json\n");
  expect_error(run(scratch_, train("data.train=" + (scratch_ / "data.jsonl"))), 1, {"data.jsonl:2"});
  expect_error(run(scratch_, train("lora.target_modules=[q_prjo]")), 2,
               {"lora.target_modules: \"q_prjo\"", "q_proj"});
  expect_error(run(scratch_, train("lora.layers_to_transform=9")), 2,
               {"lora.layers_to_transform", "9", "0 to 3"});
}

TEST_F(InputTest, AModelOfTheHubsCache) {
  const std::string snapshot = scratch_ / "hub/models--org--tiny/snapshots/c0ffee";
  std::filesystem::create_directories(snapshot);
  const std::string model = MEZZO_SOURCE_DIR "/configs/quickstart/llama2m";
  for (const std::string& file : names_in(model))
    std::filesystem::create_symlink(model + "/" + file, snapshot + "/" + file);
  const Launch with_cache{.environment = "HF_HUB_CACHE=" + (scratch_ / "hub")};
  const Outcome scored = run(scratch_, "info org/tiny --json", with_cache);
  ASSERT_EQ(scored.status, 0) << scored.err;
  EXPECT_EQ(nlohmann::json::parse(scored.out).at("path"), snapshot);
  const Outcome checked = run(
      scratch_, "validate configs/quickstart.yaml model.path=org/tiny train.output_dir=" + (scratch_ / "run"),
      with_cache);
  EXPECT_EQ(checked.status, 0) << checked.err;
  const Outcome absent = run(scratch_, "generate org/absent --prompt x", with_cache);
  EXPECT_EQ(absent.status, 2);
  EXPECT_NE(absent.err.find("`hf download org/absent`"), std::string::npos) << absent.err;
}

TEST_F(InputTest, WhatCannotBeListedInMemoryIsRefusedBeforeItIsTried) {
  // Every verb that takes steps, one key each; the numbers are beyond any host's memory.
  expect_error(
      run(scratch_, "validate configs/quickstart.yaml zo.directions=2000000000 train.batch_slices=32"), 2,
      {"zo.directions: found 2000000000: ", "GiB of memory are free; the largest that can be listed is "});
  expect_error(run(scratch_, train("train.batch_size=1000000000")), 2,
               {"train.batch_size: found 1000000000: ", "the largest that can be listed is "});
  expect_error(
      run(scratch_, "estimate configs/quickstart.yaml train.gradient_accumulation_steps=2000000000"), 2,
      {"train.gradient_accumulation_steps: found 2000000000: ", "the largest that can be listed is "});
  expect_error(run(scratch_, "profile configs/quickstart.yaml lora.r=1000000000"), 2,
               {"lora.r: found 1000000000: ", "trainable numbers", "the largest that fits is "});
}

TEST_F(InputTest, SameErrorOnAllRanksIsSaidOnce) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  expect_error(run(scratch_, train("zo.epsilon=-1"), {.ranks = 4}), 2, {"zo.epsilon"});
  const Outcome missing = run(scratch_, train("model.path=" + (scratch_ / "nowhere")), {.ranks = 2});
  EXPECT_NE(missing.status, 0);
  EXPECT_EQ(missing.errors().size(), 1u) << missing.err;
}

TEST_F(InputTest, ResultsThatCannotBeWrittenAreAnError) {
  for (const char* verb : {"--version", "info configs/quickstart/llama2m --json", "config-keys",
                           "generate configs/quickstart/llama2m --prompt x --max-new-tokens 1"}) {
    const std::string program = scratch_ / "to_full_disk.sh";
    write_file(program, fmt::format("#!/bin/sh\nexec {} \"$@\" >/dev/full\n", MEZZO_PROGRAM));
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    expect_error(run(scratch_, verb, {.program = program}), 1, {"standard output"});
  }
}

TEST_F(InputTest, WorkOfOneRankIsRefusedOnSeveral) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  for (const char* verb :
       {"info configs/quickstart/llama2m", "score configs/quickstart/llama2m nowhere.jsonl",
        "estimate configs/quickstart.yaml"}) {
    const Outcome outcome = run(scratch_, verb, {.ranks = 2});
    expect_error(outcome, 2, {"is the work of one rank, but 2 were started"});
    EXPECT_EQ(outcome.out, "");
  }
}

TEST_F(InputTest, ValidateReadsTheSnapshotToStartFrom) {
  const std::string config = "validate configs/quickstart.yaml train.resume_from_checkpoint=";
  expect_error(run(scratch_, config + (scratch_ / "nowhere.h5")), 1, {"nowhere.h5"});
}

TEST_F(InputTest, TargetsAreNotOverwritten) {
  ASSERT_EQ(run(scratch_, train("data.validation=null")).status, 0);
  std::filesystem::create_directory(scratch_ / "full");
  write_file(scratch_ / "full/precious", "x");
  for (const char* verb : {"export", "replay"}) {
    const Outcome refused =
        run(scratch_, fmt::format("{} {} --adapter {}", verb, scratch_ / "run", scratch_ / "full"));
    EXPECT_EQ(refused.status, 2);
    ASSERT_EQ(refused.errors().size(), 1u);
    EXPECT_NE(refused.errors()[0].find("--overwrite"), std::string::npos);
  }
  EXPECT_EQ(read_all(scratch_ / "full/precious"), "x");
  const std::string adapter = "replay " + (scratch_ / "run") + " --adapter ";
  const Outcome nowhere = run(scratch_, adapter + "''");
  EXPECT_EQ(nowhere.status, 2) << nowhere.err;
  EXPECT_EQ(run(scratch_, adapter + (scratch_ / "minus") + " --step -1").status, 2);
  const Outcome never = run(scratch_, train("data.validation=null train.resume_from_checkpoint=never"));
  EXPECT_EQ(never.status, 2);
  EXPECT_NE(never.err.find("--overwrite"), std::string::npos) << never.err;
}

TEST_F(InputTest, MergedModelIsReplacedWhereItIsAskedFor) {
  ASSERT_EQ(run(scratch_, train("data.validation=null")).status, 0);
  const std::string merged = scratch_ / "merged";
  const std::string command = fmt::format("export {} --merged {}", scratch_ / "run", merged);
  EXPECT_EQ(run(scratch_, command).status, 0);
  EXPECT_EQ(run(scratch_, command).status, 2);
  const auto bytes = std::filesystem::file_size(merged + "/model.safetensors");
  const Outcome replaced = run(scratch_, command + " --overwrite --dtype bf16");
  EXPECT_EQ(replaced.status, 0) << replaced.err;
  EXPECT_LT(std::filesystem::file_size(merged + "/model.safetensors"), 0.6 * static_cast<double>(bytes));

  // Not the model that is read, and no other unseen.
  EXPECT_EQ(run(scratch_, command + " --overwrite --model " + merged).status, 2);
  const Outcome other = run(scratch_, fmt::format("export {} --merged {} --model {}", scratch_ / "run",
                                                  scratch_ / "other", merged));
  EXPECT_EQ(other.status, 0) << other.err;
  EXPECT_NE(other.err.find("mezzo: warning: " + merged + ": is not the base model of the run"),
            std::string::npos)
      << other.err;
  const Outcome foreign = run(scratch_, fmt::format("export {} --merged {} --model tests/data/models/llama",
                                                    scratch_ / "run", scratch_ / "foreign"));
  EXPECT_EQ(foreign.status, 1);
  EXPECT_NE(foreign.err.find("the adapter's tensors do not belong to this model"), std::string::npos)
      << foreign.err;
}

TEST_F(InputTest, AdaptersAreCheckedAgainstTheModelTheyAreFor) {
  ASSERT_EQ(run(scratch_, train("data.validation=null")).status, 0);
  const std::string adapter = scratch_ / "run/adapter";
  const std::string records = scratch_ / "records.jsonl";
  write_file(records, "{\"prompt\": \"a\", \"completion\": \" b\"}\n");
  const std::string score = fmt::format("score configs/quickstart/llama2m {} --adapter {}", records, adapter);
  const Outcome before = run(scratch_, score);
  ASSERT_EQ(before.status, 0) << before.err;

  // A target that this model lacks is passed over, as by PEFT and by lora.adapter.
  const std::string config = adapter + "/adapter_config.json";
  nlohmann::json json = nlohmann::json::parse(read_all(config));
  json["target_modules"].push_back("c_attn");
  write_file(config, json.dump());
  EXPECT_EQ(run(scratch_, score).out, before.out);
  EXPECT_EQ(run(scratch_, fmt::format("export {} --adapter {}", adapter, scratch_ / "copy")).status, 0);
  EXPECT_EQ(hash_of(scratch_, scratch_ / "copy"), hash_of(scratch_, adapter));
  // What is wrong is said of the adapter's own file.
  json["target_modules"] = {"c_attn"};
  write_file(config, json.dump());
  const Outcome none = run(scratch_, score);
  EXPECT_EQ(none.status, 1);
  EXPECT_NE(none.err.find(config + ": target_modules selects no module"), std::string::npos) << none.err;
}

}  // namespace
}  // namespace mezzo::test
