// What the shells offer behind a line that is half typed.
#include <gtest/gtest.h>

#include "program.h"

namespace mezzo::test {
namespace {

class CompletionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const std::string shell : {"bash", "zsh", "fish"})
      write_file(scratch_ / shell, run(scratch_, "completion " + shell).out);
    std::filesystem::create_directory(scratch_ / "configs");
    write_file(scratch_ / "configs/one.yaml", "");
  }
  /// Runs a shell's command in the scratch folder; its output.
  std::string output(const std::string& command) {
    write_file(scratch_ / "command", command);
    const std::string call = fmt::format("cd {} && sh command >output 2>&1", scratch_.path());
    if (std::system(call.c_str()) < 0) return "cannot run sh";
    return read_all(scratch_ / "output");
  }
  /// What bash offers for the last word of `line`, separated by blanks.
  std::string offered(const std::string& line) {
    write_file(scratch_ / "ask",
               fmt::format("source ./bash\nCOMP_LINE='{}'\nCOMP_POINT=${{#COMP_LINE}}\n_mezzo\n"
                           "echo \"${{COMPREPLY[*]}}\"\n",
                           line));
    std::string text = output("bash ask");
    if (text.ends_with('\n')) text.pop_back();
    return text;
  }

  ScratchFolder scratch_;
};

TEST_F(CompletionTest, VerbsOptionsKeysAndTheirValues) {
  EXPECT_EQ(offered("mezzo tr"), "train");
  EXPECT_EQ(offered("mezzo train con"), "configs");
  EXPECT_EQ(offered("mezzo train --over"), "--overwrite");
  EXPECT_EQ(offered("mezzo train c.yaml zo.noi"), "zo.noise=");
  EXPECT_EQ(offered("mezzo train c.yaml zo.noise="), "gaussian rademacher");
  EXPECT_EQ(offered("mezzo train c.yaml train.seed=1 zo.noise=r"), "rademacher");
  EXPECT_EQ(offered("mezzo train c.yaml runtime.device="), "auto cpu cuda reference");
  EXPECT_EQ(offered("mezzo train c.yaml model.path=con"), "configs");
  EXPECT_EQ(offered("mezzo sweep c.yaml zo.noise=gaussian,r"), "gaussian,rademacher");
  EXPECT_EQ(offered("mezzo train c.yaml zo.noise=gaussian,r"), "") << "train takes no lists";
  EXPECT_EQ(offered("mezzo bench --device re"), "reference");
  EXPECT_EQ(offered("mezzo help prof"), "profile");
  EXPECT_EQ(offered("mezzo completion "), "bash zsh fish");
  EXPECT_EQ(offered("mezzo info x zo.noi"), "") << "info takes no keys";
}

TEST_F(CompletionTest, TheScriptsAreOfTheirShells) {
  int shells = 0;
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    if (output("command -v " + shell).empty()) continue;
    ++shells;
    EXPECT_EQ(output(fmt::format("{} -n {} && echo good", shell, shell)), "good\n") << shell;
    for (const char* word : {"rademacher", "overwrite", "sweep"})
      EXPECT_NE(read_all(scratch_ / shell).find(word), std::string::npos) << shell << " " << word;
  }
  EXPECT_GE(shells, 1);
  EXPECT_EQ(run(scratch_, "completion csh").status, 2);
}

TEST_F(CompletionTest, ZshLoadsTheScriptFromItsFunctionFolders) {
  if (output("command -v zsh").empty()) GTEST_SKIP() << "no zsh";
  std::filesystem::rename(scratch_ / "zsh", scratch_ / "_mezzo");
  write_file(
      scratch_ / "ask",
      "fpath=(.)\nautoload -Uz _mezzo\ncompadd() { echo offered $* }\nwords=(mezzo '') CURRENT=2\n_mezzo\n");
  const std::string offered = output("zsh -f ask");
  EXPECT_TRUE(offered.starts_with("offered -- train ")) << offered;
}

}  // namespace
}  // namespace mezzo::test
