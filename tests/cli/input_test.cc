// Bad input: one sentence that names the place, exit status 2 or 1 on all ranks, soon, and nothing lost.
#include <gtest/gtest.h>

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
  EXPECT_EQ(run(scratch_, "--help").status, 0);
  EXPECT_EQ(run(scratch_, "train --help").status, 0);
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
  expect_error(run(scratch_, train("lora.target_modules=[q_prjo]")), 1, {"q_prjo", "q_proj"});
}

TEST_F(InputTest, SameErrorOnAllRanksIsSaidOnce) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  expect_error(run(scratch_, train("zo.epsilon=-1"), {.ranks = 4}), 2, {"zo.epsilon"});
  const Outcome missing = run(scratch_, train("model.path=" + (scratch_ / "nowhere")), {.ranks = 2});
  EXPECT_NE(missing.status, 0);
  EXPECT_EQ(missing.errors().size(), 1u) << missing.err;
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
  const Outcome never = run(scratch_, train("data.validation=null train.resume_from_checkpoint=never"));
  EXPECT_EQ(never.status, 2);
  EXPECT_NE(never.err.find("--overwrite"), std::string::npos) << never.err;
}

}  // namespace
}  // namespace mezzo::test
