// Hostile surroundings: files that are none, standard streams that do not work, limits of the system. Each
// ends in one clear line and exit status 1 (2 where it is the config), soon, and never in a signal.
#include <gtest/gtest.h>

#include "program.h"

namespace mezzo::test {
namespace {

struct Case {
  const char* name;
  /// What sh runs in a folder of its own that holds `fifo`, which nobody writes to, and `folder`. $MEZZO is
  /// the program, $CONFIG a config whose run has two steps and goes to $RUN, $MODEL its model.
  const char* script;
  int status;
  std::vector<std::string> words;  ///< of the error line
};

std::ostream& operator<<(std::ostream& out, const Case& value) { return out << value.name; }

class EnvironmentTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__)
    if (std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()).find("little_address") !=
        std::string::npos)
      GTEST_SKIP() << "the address sanitizer maps terabytes";
#endif
  }
  Outcome run_script(const std::string& script) {
    std::filesystem::create_directory(scratch_ / "folder");
    std::filesystem::create_directory(scratch_ / "work");
    std::filesystem::permissions(scratch_.path(), std::filesystem::perms::all);
    write_file(
        scratch_ / "script.sh",
        fmt::format("cd {}\nmkfifo fifo\nMEZZO={}\nCONFIG={}\nMODEL={}\nRUN={}\n{}\n", scratch_ / "work",
                    MEZZO_PROGRAM, scratch_ / "config.yaml", model, scratch_ / "run", script));
    std::string config = read_all(MEZZO_SOURCE_DIR "/configs/quickstart.yaml");
    for (const std::string folder : {"configs/quickstart"}) {
      for (std::size_t at = 0; (at = config.find(folder, at)) != config.npos; at += std::string(model).size())
        config.replace(at, folder.size(), MEZZO_SOURCE_DIR "/" + folder);
    }
    write_file(scratch_ / "config.yaml", config);
    return run(scratch_, "", {.program = "timeout -k 5 60 sh " + (scratch_ / "script.sh")});
  }

  static constexpr const char* model = MEZZO_SOURCE_DIR "/configs/quickstart/llama2m";
  ScratchFolder scratch_;
};

TEST_P(EnvironmentTest, EndsInOneClearLine) {
  const Case& expected = GetParam();
  const Outcome outcome = run_script(expected.script);
  EXPECT_EQ(outcome.status, expected.status) << outcome.err;
  ASSERT_EQ(outcome.errors().size(), 1u) << outcome.err;
  for (const std::string& word : expected.words)
    EXPECT_NE(outcome.errors()[0].find(word), std::string::npos)
        << outcome.errors()[0] << "\nlacks: " << word;
  // Nothing but that line and what the run says before.
  EXPECT_EQ(outcome.err.substr(outcome.err.rfind('\n', outcome.err.size() - 2) + 1),
            outcome.errors()[0] + "\n");
}

#define TRAIN "exec $MEZZO train $CONFIG train.output_dir=$RUN train.max_steps=2 data.validation=null "

INSTANTIATE_TEST_SUITE_P(
    Files, EnvironmentTest,
    ::testing::Values(
        Case{"fifo_as_config", "exec $MEZZO validate fifo", 2, {"fifo", "a regular file", "found a FIFO"}},
        Case{"device_as_config",
             "exec $MEZZO validate /dev/zero",
             2,
             {"/dev/zero", "a regular file", "a device"}},
        Case{"fifo_as_data", TRAIN "data.train=fifo", 1, {"fifo", "a regular file", "found a FIFO"}},
        Case{"device_as_data", TRAIN "data.train=/dev/zero", 1, {"/dev/zero", "a regular file", "a device"}},
        Case{"folder_as_data", TRAIN "data.train=../folder", 1, {"folder", "a regular file", "a directory"}},
        Case{"fifo_as_snapshot", TRAIN "train.resume_from_checkpoint=fifo", 1, {"fifo", "a regular file"}},
        Case{"fifo_to_score", "exec $MEZZO score $MODEL fifo", 1, {"fifo", "a regular file"}},
        Case{"fifo_as_tokenizer", "exec $MEZZO tokenize fifo", 1, {"fifo", "a regular file"}},
        Case{"fifo_as_weights",
             "cp $MODEL/*.json .; ln -s fifo model.safetensors; exec $MEZZO info .",
             1,
             {"model.safetensors", "a regular file"}},
        Case{"fifo_as_profile",
             "exec $MEZZO estimate $CONFIG --ranks 2 --measured fifo",
             1,
             {"fifo", "a regular file"}}),
    [](const auto& one) { return std::string(one.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Streams, EnvironmentTest,
    ::testing::Values(
        Case{"folder_on_standard_input",
             "exec $MEZZO tokenize $MODEL <../folder",
             1,
             {"standard input: cannot read: Is a directory"}},
        Case{"device_on_standard_input",
             "exec $MEZZO tokenize $MODEL </dev/zero",
             1,
             {"standard input: more than"}},
        // A pipe whose reader is gone: the read end is opened first, so that opening the write end does not
        // wait.
        Case{"results_that_nobody_reads",
             "exec 4<>fifo 5>fifo 4>&-; exec $MEZZO config-keys >&5",
             1,
             {"standard output: cannot write"}},
        Case{"scores_that_nobody_reads",
             "echo '{\"prompt\": \"a\", \"completion\": \" b\"}' >lines; exec 4<>fifo 5>fifo 4>&-; "
             "exec $MEZZO score $MODEL lines >&5",
             1,
             {"standard output: cannot write: Broken pipe"}}),
    [](const auto& one) { return std::string(one.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Limits, EnvironmentTest,
    ::testing::Values(Case{"files_of_16_kib", "ulimit -f 32; " TRAIN, 1, {"File too large"}},
                      Case{"a_working_directory_that_is_gone",
                           "mkdir gone; cd gone; rmdir ../gone; exec $MEZZO validate $CONFIG model.path=here",
                           2,
                           {"model.path", "the working directory"}},
                      // As much as loading the program and its libraries takes, which differs by an order of
                      // magnitude with CUDA's, and little more.
                      Case{"little_address_space",
                           "export OMP_NUM_THREADS=1; v=250000; until (ulimit -v $v; timeout 5 $MEZZO "
                           "--version >/dev/null 2>&1); do "
                           "v=$((v + 50000)); done; ulimit -v $v; " TRAIN,
                           1,
                           {"memory"}}),
    [](const auto& one) { return std::string(one.param.name); });

TEST_F(EnvironmentTest, ASmallStackIsEnough) {
  const Outcome outcome = run_script("ulimit -s 256; " TRAIN);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
}

}  // namespace
}  // namespace mezzo::test
