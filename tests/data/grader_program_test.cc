// Graders that are programs: small ones in sh, good and bad. No case may hang, and each says one line.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "mezzo/core/error.h"
#include "mezzo/data/reward.h"
#include "scratch.h"

namespace mezzo {
namespace {

using test::read_all;
using test::ScratchFolder;
using testing::ElementsAre;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

// Functions for graders: `next` reads a question and sets what it holds, `say` answers.
constexpr const char* functions = R"(
next() {
  IFS= read -r line || exit 0
  id=${line#*\"id\": }; id=${id%%,*}
  tokens=${line#*\"tokens\": }; tokens=${tokens%%,*}
  text=${line#*\"completion\": \"}; text=${text%%\"*}
}
say() { echo "{\"reward\": $1}"; }
say_by_id() { echo "{\"id\": $1, \"reward\": $2}"; }
)";

class GraderTest : public testing::Test {
 protected:
  /// A config of a grader that runs `script`.
  RewardConfig runs(const std::string& script) const {
    RewardConfig config;
    config.command = {"sh", scratch_.write("grader.sh", functions + script)};
    config.timeout_s = 20;
    config.restarts = 1;
    return config;
  }
  std::unique_ptr<Grader> make(const RewardConfig& config) {
    return make_grader(config, {.rank = 3,
                                .log_folder = scratch_.path(),
                                .working_directory = scratch_.path(),
                                .warn = [&](const std::string& line) { warnings_.push_back(line); }});
  }
  /// What completions of 0, 1, ... tokens are worth, the reward -1 where there is none.
  static std::vector<double> rewards_of(Grader& grader, int count) {
    for (int i = 0; i < count; ++i)
      grader.submit({.record = "{}", .text = "t" + std::to_string(i), .tokens = i});
    std::vector<double> rewards;
    for (const Grade& grade : grader.finish()) rewards.push_back(grade.good ? grade.reward : -1);
    return rewards;
  }
  /// The one warning of a grader that gave none of two completions a reward.
  std::string complaint_of(RewardConfig config) {
    config.restarts = 0;
    warnings_.clear();
    const auto start = Clock::now();
    EXPECT_THAT(rewards_of(*make(config), 2), ElementsAre(-1, -1));
    EXPECT_LT(Clock::now() - start, std::chrono::seconds(15));
    EXPECT_EQ(warnings_.size(), 1u);
    if (warnings_.empty()) return "";
    EXPECT_EQ(warnings_[0].find('\n'), std::string::npos);
    EXPECT_THAT(warnings_[0], HasSubstr("data.task.reward.command: 2 of 2 completions have no reward; the "
                                        "program failed 1 time, first process 0 of rank 3: "));
    return warnings_[0];
  }
  /// Waits for what `condition` says.
  template <typename Condition>
  static bool comes_true(Condition condition) {
    for (int i = 0; i < 2000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  ScratchFolder scratch_;
  std::vector<std::string> warnings_;
};

// ---- as it should be ------------------------------------------------------------------------------------

TEST_F(GraderTest, AnswersInOrder) {
  const auto grader = make(runs("while next; do say $tokens; done"));
  EXPECT_TRUE(grader->finish().empty());
  EXPECT_THAT(rewards_of(*grader, 3), ElementsAre(0, 1, 2));
  EXPECT_THAT(rewards_of(*grader, 1), ElementsAre(0));
  std::vector<double> many = rewards_of(*grader, 1000);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(many[static_cast<std::size_t>(i)], i);
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(GraderTest, IsAskedInJsonLines) {
  const auto grader = make(runs("while next; do printf '%s\\n' \"$line\" >> asked; say 1; done"));
  const std::string text = "a\nb \"q\" \\ \u00e9 \U0001F600";
  grader->submit({.record = R"({"n":[1,2],"s":"ü"})",
                  .answers = {"not shown"},
                  .text = text,
                  .tokens = 7,
                  .finish = FinishReason::length});
  grader->submit({.record = "{}", .text = "", .tokens = 0});
  EXPECT_EQ(grader->finish(), (std::vector<Grade>{{true, 1, {}}, {true, 1, {}}}));
  std::istringstream asked(read_all(scratch_ / "asked"));
  std::string line;
  ASSERT_TRUE(std::getline(asked, line));
  const nlohmann::json first = nlohmann::json::parse(line);
  const nlohmann::json expected = {{"id", 0},
                                   {"record", {{"n", {1, 2}}, {"s", "ü"}}},
                                   {"completion", text},
                                   {"tokens", 7},
                                   {"finish_reason", "length"}};
  EXPECT_EQ(first, expected);
  ASSERT_TRUE(std::getline(asked, line));
  EXPECT_EQ(nlohmann::json::parse(line).at("finish_reason"), "stop");
  EXPECT_EQ(nlohmann::json::parse(line).at("id"), 1);
  EXPECT_FALSE(std::getline(asked, line));
}

TEST_F(GraderTest, AnswersByIdInAnyOrder) {
  const auto grader =
      make(runs("while next; do a=$id; x=$tokens; next; say_by_id $id $tokens; say_by_id $a $x; done"));
  EXPECT_THAT(rewards_of(*grader, 6), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(rewards_of(*grader, 2), ElementsAre(0, 1));  // ids go on
}

TEST_F(GraderTest, AnswersWithMetrics) {
  const auto grader =
      make(runs(R"(while next; do echo '{"metrics": {"format": 0.5, "n": -2}, "reward": -1.5e1}'; done)"));
  grader->submit({.record = "{}"});
  EXPECT_EQ(grader->finish(), (std::vector<Grade>{{true, -15, {{"format", 0.5}, {"n", -2}}}}));
}

TEST_F(GraderTest, WorksWhileItsCallerDoes) {
  const auto grader = make(runs("while next; do : > answered; say 1; done"));
  grader->submit({.record = "{}"});
  EXPECT_TRUE(comes_true([&] { return std::filesystem::exists(scratch_ / "answered"); }));
  EXPECT_EQ(grader->finish().size(), 1u);
}

TEST_F(GraderTest, SeveralProcessesShareTheWork) {
  RewardConfig config =
      runs(R"(while next; do sleep 0.02; echo "{\"reward\": $tokens, \"metrics\": {\"pid\": $$}}"; done)");
  config.workers = 3;
  const auto grader = make(config);
  for (int i = 0; i < 30; ++i) grader->submit({.record = "{}", .tokens = i});
  const std::vector<Grade> grades = grader->finish();
  std::map<double, int> of_process;
  ASSERT_EQ(grades.size(), 30u);
  for (std::size_t i = 0; i < grades.size(); ++i) {
    EXPECT_EQ(grades[i].reward, static_cast<double>(i));
    ++of_process[grades[i].metrics.at("pid")];
  }
  EXPECT_GE(of_process.size(), 2u);
  EXPECT_TRUE(std::filesystem::exists(scratch_ / "grader-rank3-worker2.log"));
}

TEST_F(GraderTest, SlowAnswersAreAwaited) {
  RewardConfig config = runs("while next; do sleep 0.3; say 1; done");
  config.timeout_s = 2;  // an answer, not all of them
  EXPECT_THAT(rewards_of(*make(config), 8), testing::Each(1));
  EXPECT_TRUE(warnings_.empty());
}

// ---- what goes wrong ------------------------------------------------------------------------------------

TEST_F(GraderTest, OneThatDiesIsStartedAnew) {
  // Each process has one answer in it.
  const auto grader = make(runs("next; say $tokens"));
  EXPECT_THAT(rewards_of(*grader, 5), ElementsAre(0, 1, 2, 3, 4));
  ASSERT_EQ(warnings_.size(), 1u);
  // The last may be seen to end before the batch does.
  const std::string& line = warnings_[0];
  EXPECT_TRUE(
      line.starts_with("data.task.reward.command: the program failed 4 times, first process 0 of rank 3: ") ||
      line.starts_with("data.task.reward.command: the program failed 5 times, first process 0 of rank 3: "))
      << line;
  EXPECT_THAT(line, HasSubstr(": it exited with code 0"));
  EXPECT_THAT(rewards_of(*grader, 2), ElementsAre(0, 1));
}

TEST_F(GraderTest, OneThatIsKilledIsStartedAnew) {
  const auto grader =
      make(runs("while next; do if [ ! -e killed ]; then : > killed; kill -KILL $$; fi; say $tokens; done"));
  EXPECT_THAT(rewards_of(*grader, 3), ElementsAre(0, 1, 2));
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_THAT(warnings_[0],
              HasSubstr("failed 1 time, first process 0 of rank 3: it was killed by signal 9 (Killed)"));
}

TEST_F(GraderTest, ACompletionThatNoProcessSurvivesIsBadAlone) {
  const auto grader = make(runs("while next; do [ $text = t3 ] && exit 7; say $tokens; done"));
  EXPECT_THAT(rewards_of(*grader, 6), ElementsAre(0, 1, 2, -1, 4, 5));
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_THAT(warnings_[0], HasSubstr("1 of 6 completions have no reward; the program failed 2 times, first "
                                      "process 0 of rank 3: it exited with code 7"));
  EXPECT_THAT(rewards_of(*grader, 2), ElementsAre(0, 1));
  EXPECT_EQ(warnings_.size(), 1u);
}

TEST_F(GraderTest, OneThatExitsAtItsStartIsGivenUpForTheBatch) {
  RewardConfig config = runs("echo x >> started; echo 'no model' >&2; exit 5");
  const auto grader = make(config);
  EXPECT_THAT(rewards_of(*grader, 50), testing::Each(-1));
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_THAT(warnings_[0], HasSubstr("50 of 50 completions have no reward"));
  EXPECT_THAT(warnings_[0], HasSubstr("it exited with code 5; it said \"no model\" (" +
                                      scratch_ / "grader-rank3-worker0.log"));
  // At most restarts + 1 processes for each of restarts + 1 completions, and the one of the start.
  EXPECT_LE(read_all(scratch_ / "started").size() / 2, 5u);
  EXPECT_THAT(rewards_of(*grader, 2), testing::Each(-1));  // the next batch tries again
  EXPECT_EQ(warnings_.size(), 2u);
}

TEST_F(GraderTest, WhatComesAfterItWasGivenUpHasNoRewardEither) {
  RewardConfig config = runs("next; echo x >> asked; exit 5");
  config.restarts = 0;
  const auto grader = make(config);
  grader->submit({.record = "{}"});
  EXPECT_TRUE(comes_true([&] { return std::filesystem::exists(scratch_ / "asked"); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // long enough to be given up
  EXPECT_THAT(rewards_of(*grader, 2), ElementsAre(-1, -1, -1));
  EXPECT_EQ(read_all(scratch_ / "asked"), "x\n");
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_THAT(warnings_[0], HasSubstr("3 of 3 completions have no reward; the program failed 1 time"));
}

TEST_F(GraderTest, WhatIsNoAnswerIsSaid) {
  const auto complaint = [&](const std::string& answer) {
    return complaint_of(runs("next; cat <<'END'\n" + answer + "\nEND\nsleep 100"));
  };
  EXPECT_THAT(complaint("rubbish"),
              HasSubstr("it answered \"rubbish\"; expected a line of JSON such as {\"reward\": 1.0}"));
  EXPECT_THAT(complaint(""), HasSubstr("it answered \"\""));
  EXPECT_THAT(complaint(R"({"reward": NaN})"), HasSubstr("which has no NaN and no infinity"));
  EXPECT_THAT(complaint(R"({"reward": 1e999})"), HasSubstr("1e999"));
  EXPECT_THAT(complaint(R"({"reward": "1"})"),
              HasSubstr("its answer: reward is \"1\"; expected a finite number"));
  EXPECT_THAT(complaint(R"({"reward": null})"), HasSubstr("reward is null"));
  EXPECT_THAT(complaint(R"({"reward": true})"), HasSubstr("reward is true"));
  EXPECT_THAT(complaint("{}"), HasSubstr("reward"));
  EXPECT_THAT(complaint("3"), HasSubstr("an object"));
  EXPECT_THAT(complaint(R"({"reward": 1, "score": 2})"), HasSubstr("score"));
  EXPECT_THAT(complaint(R"({"reward": 1, "metrics": {"a": "b"}})"), HasSubstr("metrics.a"));
  EXPECT_THAT(complaint(R"({"reward": 1, "id": "0"})"), HasSubstr("id is \"0\""));
  EXPECT_THAT(complaint(R"({"reward": 1, "id": 77})"),
              HasSubstr("it answered the id 77, which it was not asked"));
  EXPECT_THAT(complaint(R"({"reward": 1} {"reward": 1})"), HasSubstr("it answered"));
}

TEST_F(GraderTest, AnswersThatComeTwiceAreRefused) {
  const auto grader = make(runs("while next; do say_by_id $id 1; say_by_id $id 1; done"));
  EXPECT_THAT(rewards_of(*grader, 4), testing::Each(1));  // each first one counts
  ASSERT_GE(warnings_.size(), 1u);
  EXPECT_THAT(warnings_[0], HasSubstr("or has answered already"));
}

TEST_F(GraderTest, OneThatHangsIsKilled) {
  RewardConfig config = runs("next; sleep 1000");
  config.timeout_s = 0.3;
  EXPECT_THAT(complaint_of(config), HasSubstr("it gave no answer within 0.3 s (data.task.reward.timeout_s)"));
}

TEST_F(GraderTest, OneThatIsStoppedIsKilled) {
  RewardConfig config = runs("next; kill -STOP $$; say 1");
  config.timeout_s = 0.3;
  EXPECT_THAT(complaint_of(config), HasSubstr("it gave no answer within 0.3 s"));
}

TEST_F(GraderTest, OneThatFloodsItsOutputIsKilled) {
  EXPECT_THAT(complaint_of(runs("next; head -c 1000000000 /dev/zero | tr '\\0' x; say 1")),
              HasSubstr("it wrote a line of more than 1048576 bytes"));
  EXPECT_THAT(complaint_of(runs("next; yes rubbish")), HasSubstr("it answered \"rubbish\""));
}

TEST_F(GraderTest, OneThatSaysTooMuchOnStandardErrorIsHeard) {
  const auto grader = make(runs("while next; do head -c 5000000 /dev/zero | tr '\\0' x >&2; say 1; done"));
  EXPECT_THAT(rewards_of(*grader, 3), testing::Each(1));
  EXPECT_TRUE(warnings_.empty());
  const std::string log = read_all(scratch_ / "grader-rank3-worker0.log");
  EXPECT_LT(log.size(), (1u << 20) + 100);
  EXPECT_THAT(log.substr(log.size() - 60), HasSubstr("the log is full"));
}

TEST_F(GraderTest, OneThatClosesItsStreamsIsSeen) {
  EXPECT_THAT(complaint_of(runs("next; exec 1>&-; sleep 1000")), HasSubstr("it closed its standard output"));
  // More than a pipe holds: the rest of it meets nobody. SIGPIPE would end this test.
  RewardConfig config = runs("exec 0<&-; sleep 1000");
  config.restarts = 0;
  config.timeout_s = 10;
  const auto grader = make(config);
  grader->submit({.record = "{}", .text = std::string(1'000'000, 'x')});
  EXPECT_FALSE(grader->finish().at(0).good);
  EXPECT_THAT(warnings_.back(), HasSubstr("it closed its standard input"));
  // Without a standard error it is as good as any.
  EXPECT_THAT(rewards_of(*make(runs("exec 2>&-; while next; do say 1; done")), 2), testing::Each(1));
}

TEST_F(GraderTest, LongQuestionsAndAnswersGoThrough) {
  // Both pipes fill up at once.
  const auto grader = make(runs(R"(while IFS= read -r line; do printf '{"reward": 1%900000s}\n' ''; done)"));
  for (int i = 0; i < 4; ++i) grader->submit({.record = "{}", .text = std::string(100'000, 'x')});
  for (const Grade& grade : grader->finish()) EXPECT_TRUE(grade.good);
}

TEST_F(GraderTest, StopsTheRunWhereItIsToldTo) {
  RewardConfig config = runs("while next; do [ $text = t1 ] && exit 7; say $tokens; done");
  config.on_error = OnRewardError::stop;
  const auto grader = make(config);
  const std::string message = test::message_of<Error>([&] { rewards_of(*grader, 3); });
  EXPECT_THAT(message,
              HasSubstr("data.task.reward.command: a completion has no reward (data.task.reward.on_error: "
                        "stop): process 0 of rank 3: it exited with code 7"));
  EXPECT_NE(test::message_of<Error>([&] { rewards_of(*grader, 3); }), "");  // nor is it of use afterwards
}

TEST_F(GraderTest, RestartsOfNoneAreNone) {
  RewardConfig config = runs("echo x >> started; next; next; next; say 1");
  config.restarts = 0;
  const auto grader = make(config);
  EXPECT_THAT(rewards_of(*grader, 3), ElementsAre(1, -1, -1));
  EXPECT_EQ(read_all(scratch_ / "started"), "x\n");
}

// ---- the start ------------------------------------------------------------------------------------------

TEST_F(GraderTest, AProgramThatIsNotThereIsSaidAtOnce) {
  const auto error = [&](std::vector<std::string> command) {
    RewardConfig config;
    config.command = std::move(command);
    return test::message_of<UsageError>([&] { make(config); });
  };
  EXPECT_EQ(
      error({"no-such-grader", "x"}),
      "data.task.reward.command: cannot start \"no-such-grader\": no folder of PATH has such a program");
  EXPECT_EQ(error({"./grader"}),
            "data.task.reward.command: cannot start \"./grader\": No such file or directory");
  scratch_.write("plain", "no program");
  EXPECT_THAT(error({"./plain"}), HasSubstr("Permission denied"));
  RewardConfig config = runs("next");
  EXPECT_THAT(
      test::message_of<UsageError>([&] { make_grader(config, {.working_directory = scratch_ / "nowhere"}); }),
      HasSubstr("cannot start \"sh\": No such file or directory"));
}

TEST_F(GraderTest, SeesNothingSecretOfTheEnvironment) {
  ::setenv("MEZZO_TEST_SECRET", "s3cret", 1);
  ::setenv("MEZZO_TEST_NAMED", "n4med", 1);
  RewardConfig config = runs("env > seen; while next; do say 1; done");
  config.environment = {"MEZZO_TEST_NAMED"};
  EXPECT_THAT(rewards_of(*make(config), 1), ElementsAre(1));
  const std::string seen = "\n" + read_all(scratch_ / "seen");
  EXPECT_THAT(seen, HasSubstr("\nMEZZO_TEST_NAMED=n4med\n"));
  EXPECT_THAT(seen, HasSubstr("\nPATH="));
  EXPECT_EQ(seen.find("SECRET"), seen.npos);
  std::istringstream lines(seen);
  for (std::string line; std::getline(lines, line);) {
    const std::string name = line.substr(0, line.find('='));
    // PWD, OLDPWD, SHLVL and _ are the shell's own.
    EXPECT_THAT((std::vector<std::string>{"", "PATH", "HOME", "LANG", "TMPDIR", "MEZZO_TEST_NAMED", "PWD",
                                          "OLDPWD", "SHLVL", "_"}),
                testing::Contains(name));
  }
  config.environment = {"MEZZO_TEST_UNSET"};
  EXPECT_THAT(test::message_of<UsageError>([&] { make(config); }),
              HasSubstr("data.task.reward.environment: \"MEZZO_TEST_UNSET\" is not set"));
}

TEST_F(GraderTest, GetsNoDescriptorsOfItsParent) {
  constexpr int leaked = 77;
  const int file = ::open("/dev/null", O_RDONLY);  // as a library may: without O_CLOEXEC
  ASSERT_EQ(::dup2(file, leaked), leaked);
  const auto grader = make(runs("while next; do [ -e /proc/$$/fd/77 ] && say 0 || say 1; done"));
  EXPECT_THAT(rewards_of(*grader, 1), ElementsAre(1));
  ::close(leaked);
  ::close(file);
}

TEST_F(GraderTest, HasTheUsualSignals) {
  // This program may ignore SIGPIPE and block others.
  struct sigaction ignore {
  }, before{};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &before);
  const auto grader =
      make(runs("while next; do grep -E '^Sig(Blk|Ign)' /proc/self/status >> signals; say 1; done"));
  EXPECT_THAT(rewards_of(*grader, 1), ElementsAre(1));
  ::sigaction(SIGPIPE, &before, nullptr);
  EXPECT_EQ(read_all(scratch_ / "signals"), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

TEST_F(GraderTest, KeepsWhatIsSaidOnStandardError) {
  scratch_.write("grader-rank3-worker0.log", "from before\n");
  const auto grader = make(runs("while next; do echo \"asked $tokens\" >&2; say 1; done"));
  EXPECT_THAT(rewards_of(*grader, 2), testing::Each(1));
  const std::string log = scratch_ / "grader-rank3-worker0.log";
  EXPECT_TRUE(comes_true([&] { return read_all(log) == "from before\nasked 0\nasked 1\n"; }))
      << read_all(log);
  EXPECT_TRUE(is_grader_log("grader-rank3-worker0.log"));
  EXPECT_TRUE(is_grader_log(grader_log_name(12, 34)));
  for (const char* name :
       {"grader.log", "grader-rank3.log", "grader-rank3-worker0.log.old", "grader-rankx-worker0.log",
        "grader-rank3-worker.log", "grader-rank03-worker0.log"}) {
    EXPECT_FALSE(is_grader_log(name)) << name;
  }
}

// ---- the end --------------------------------------------------------------------------------------------

/// Whether a process is there and has not ended.
bool is_alive(const std::string& pid) {
  const std::string status = read_all("/proc/" + pid + "/stat");
  const std::size_t name_end = status.rfind(')');
  return name_end != status.npos && status.at(name_end + 2) != 'Z';
}

std::vector<std::string> pids_in(const std::string& path) {
  std::istringstream words(read_all(path));
  return {std::istream_iterator<std::string>(words), {}};
}

TEST_F(GraderTest, EndsWithItsGrader) {
  // It hears no TERM, and has a child of its own.
  const auto start = Clock::now();
  {
    const auto grader = make(runs("trap '' TERM; sleep 1000 & echo $$ $! > pids; while :; do sleep 1; done"));
    EXPECT_TRUE(comes_true([&] { return pids_in(scratch_ / "pids").size() == 2; }));
    for (const std::string& pid : pids_in(scratch_ / "pids")) EXPECT_TRUE(is_alive(pid));
  }
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(10));
  const std::vector<std::string> pids = pids_in(scratch_ / "pids");
  ASSERT_EQ(pids.size(), 2u);
  for (const std::string& pid : pids) EXPECT_TRUE(comes_true([&] { return !is_alive(pid); }));
}

TEST_F(GraderTest, HasATimeToEnd) {
  {
    const auto grader = make(runs("trap 'echo bye > bye' EXIT; trap exit TERM; while next; do say 1; done"));
    EXPECT_THAT(rewards_of(*grader, 1), ElementsAre(1));
  }
  EXPECT_EQ(read_all(scratch_ / "bye"), "bye\n");
}

TEST_F(GraderTest, EndsWithAProcessThatIsKilled) {
  const RewardConfig config = runs("echo $$ > pid; exec 0<&-; while :; do sleep 1; done");
  const pid_t parent = ::fork();
  if (parent == 0) {
    const auto grader = make(config);
    for (;;) ::pause();
  }
  ASSERT_TRUE(comes_true([&] { return pids_in(scratch_ / "pid").size() == 1; }));
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  const std::string pid = pids_in(scratch_ / "pid").at(0);
  EXPECT_TRUE(comes_true([&] { return !is_alive(pid); }));
}

}  // namespace
}  // namespace mezzo
