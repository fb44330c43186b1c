// How jobs end: runs tests/comm/job.cc under mpirun and looks at status, message, time, and who is left.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <thread>

#include "mezzo/comm/exchange.h"
#include "scratch.h"

namespace mezzo {
namespace {

namespace fs = std::filesystem;

struct Ended {
  int status = 0;
  double seconds = 0;  ///< from the moment in which the last rank had its exchange
  std::string out;
  std::string err;
  std::vector<std::string> errors;  ///< the lines "mezzo: error: ..."
};

class Job : public testing::Test {
 protected:
  Job() { fs::create_directory(folder_ / "pids"); }

  Ended shell(const std::string& command) {
    const int status =
        std::system(fmt::format("MEZZO_TEST_PIDS='{0}/pids' {1} >'{0}/out' 2>'{0}/err' </dev/null",
                                folder_.path(), command)
                        .c_str());
    Ended ended;
    const auto now = fs::file_time_type::clock::now();
    ended.seconds = std::numeric_limits<double>::infinity();
    for (const auto& rank : fs::directory_iterator(folder_ / "pids")) {
      ended.seconds = std::min(ended.seconds, Seconds(now - rank.last_write_time()).count());
    }
    ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    ended.out = test::read_all(folder_ / "out");
    ended.err = test::read_all(folder_ / "err");
    EXPECT_EQ(ended.err.find("MPI calls overlap"), std::string::npos) << ended.err;
    std::istringstream lines(ended.err);
    for (std::string line; std::getline(lines, line);) {
      if (line.find("mezzo: error:") != std::string::npos) ended.errors.push_back(line);
    }
    return ended;
  }

  Ended run(int ranks, const std::string& arguments) {
    return shell(fmt::format("{} -np {} '{}' {}", MEZZO_MPIRUN, ranks, MEZZO_TEST_JOB, arguments));
  }

  /// Whether the process runs; one that has ended and was not waited for yet does not.
  static bool runs(const std::string& pid) {
    std::string word;
    std::ifstream stat("/proc/" + pid + "/stat");  // "pid (name) state ...", the name has no spaces here
    stat >> word >> word >> word;
    return stat && word != "Z" && word != "X";
  }

  /// Ranks that still run. mpirun may return a moment before the last of them is gone.
  std::vector<std::string> left_behind() {
    std::vector<std::string> left;
    for (int i = 0; i < 20; ++i) {
      left.clear();
      for (const auto& entry : fs::directory_iterator(folder_ / "pids")) {
        if (runs(test::read_all(entry.path()))) left.push_back(entry.path().filename());
      }
      if (left.empty()) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return left;
  }

  int ranks_seen() { return static_cast<int>(std::distance(fs::directory_iterator(folder_ / "pids"), {})); }

  /// One message, the status, at most 5 s after what was waited for, nobody left.
  void expect_end(const Ended& ended, int status, const std::string& message, double waited = 0) {
    EXPECT_EQ(ended.status, status) << ended.err;
    EXPECT_EQ(ended.errors, std::vector<std::string>{"mezzo: error: " + message}) << ended.err;
    EXPECT_LT(ended.seconds, waited + 5.0 * MEZZO_TEST_SLOWNESS);
    EXPECT_EQ(left_behind(), std::vector<std::string>());
  }

  std::string host_ = make_self_exchange()->host();
  const test::ScratchFolder folder_;
};

TEST_F(Job, EndsWell) {
  for (const int ranks : {1, 2, 4}) {
    const Ended ended = run(ranks, "ok");
    EXPECT_EQ(ended.status, 0) << ended.err;
    EXPECT_EQ(ended.errors, std::vector<std::string>());
    EXPECT_EQ(ranks_seen(), ranks);
    EXPECT_EQ(left_behind(), std::vector<std::string>());
  }
}

TEST_F(Job, StopsWithItsStatus) {
  const Ended ended = run(2, "stopped");
  EXPECT_EQ(ended.status, 75) << ended.err;
  EXPECT_EQ(ended.errors, std::vector<std::string>());
}

// ---- at start-up ----

TEST_F(Job, ErrorOfAllRanksAtStartIsSaidOnce) {
  expect_end(run(4, "usage 0 1 2 3"), 2, "train.epochs: unknown key");
}

TEST_F(Job, ErrorOfOneRankAtStartNamesIt) {
  expect_end(run(4, "open 2"), 1,
             "rank 2 on " + host_ + ": data/train.jsonl:3: found a number, expected a string");
}

TEST_F(Job, ErrorOnOneRankJobIsSaidPlainly) {
  expect_end(run(1, "open 0"), 1, "data/train.jsonl:3: found a number, expected a string");
  expect_end(shell(fmt::format("'{}' throw 0", MEZZO_TEST_JOB)), 1,
             "run/trajectory: cannot write: No space left on device");
}

// ---- in the run ----

TEST_F(Job, ErrorOfAnyRankEndsTheJob) {
  for (const int rank : {0, 3}) {
    expect_end(
        run(4, fmt::format("throw {}", rank)), 1,
        fmt::format("rank {} on {}: run/trajectory: cannot write: No space left on device", rank, host_));
  }
}

TEST_F(Job, ErrorKeepsItsStatus) {
  expect_end(run(2, "throw-code 1"), 2, fmt::format("rank 1 on {}: wrong", host_));
}

TEST_F(Job, ErrorsOfAllRanksAtOnceAreSaidOnce) {
  expect_end(run(4, "throw 0 1 2 3"), 1,
             fmt::format("rank 0 on {}: run/trajectory: cannot write: No space left on device", host_));
}

TEST_F(Job, ErrorsOfSeveralRanksAreSaidOnce) {
  const Ended ended = run(4, "throw 1 2 3");
  ASSERT_EQ(ended.errors.size(), 1u) << ended.err;
  EXPECT_TRUE(ended.errors[0].starts_with("mezzo: error: rank ")) << ended.errors[0];
  EXPECT_EQ(ended.status, 1);
}

TEST_F(Job, ErrorDoesNotWaitForABusyRankZero) {
  expect_end(run(2, "throw-busy 1"), 1, fmt::format("rank 1 on {}: disk full", host_));
}

TEST_F(Job, ErrorsOfSeveralRanksWithABusyRankZeroAreSaidOnce) {
  expect_end(run(4, "throw-busy 1 2 3"), 1, fmt::format("rank 1 on {}: disk full", host_));
}

TEST_F(Job, RankZeroWhoFailsLaterDoesNotSpeakAgain) {
  const Ended ended = run(4, "throw-slow 1");
  ASSERT_EQ(ended.errors.size(), 1u) << ended.err;
  EXPECT_EQ(ended.status, 1);
  EXPECT_LT(ended.seconds, 5.0 * MEZZO_TEST_SLOWNESS);
}

TEST_F(Job, DifferentNumbersOfWordsAreAnError) {
  expect_end(
      run(2, "mismatch 1"), 1,
      fmt::format(
          "rank 1 on {0} brought 3 words to exchange 2, but rank 0 on {0} brought 2 words to exchange 2",
          host_));
}

// ---- ranks that are given up: rank 0 notices after a second, the others miss rank 0 a second later ----

TEST_F(Job, FrozenRanksAreNamedAndEnded) {
  for (const char* ranks : {"1", "0", "1 3"}) {
    const Ended ended = run(4, fmt::format("freeze {}", ranks));
    EXPECT_EQ(ended.status, 75) << ended.err;
    ASSERT_EQ(ended.errors.size(), 1u) << ended.err;
    std::istringstream list(ranks);
    for (std::string rank; list >> rank;) {
      EXPECT_NE(ended.errors[0].find(fmt::format("rank {} on {} was not heard for ", rank, host_)),
                std::string::npos)
          << ended.errors[0];
    }
    EXPECT_NE(ended.errors[0].find("(last seen in the forward of step 7)"), std::string::npos)
        << ended.errors[0];
    EXPECT_LT(ended.seconds, 0.3 + 2.0 + 5.0 * MEZZO_TEST_SLOWNESS);
    EXPECT_EQ(left_behind(), std::vector<std::string>());
  }
}

TEST_F(Job, StragglersAreNamedThoughTheyLive) {
  for (const int rank : {2, 0}) {
    const Ended ended = run(4, fmt::format("straggler {}", rank));
    EXPECT_EQ(ended.status, 75) << ended.err;
    ASSERT_EQ(ended.errors.size(), 1u) << ended.err;
    EXPECT_NE(ended.errors[0].find(fmt::format("rank {} on {} lives, but did not come for ", rank, host_)),
              std::string::npos)
        << ended.errors[0];
    EXPECT_LT(ended.seconds, 0.3 + 2.0 + 5.0 * MEZZO_TEST_SLOWNESS);
  }
}

TEST_F(Job, WorkingForLongIsNoSilence) {
  for (const int rank : {1, 0}) {
    const Ended ended = run(2, fmt::format("busy {}", rank));
    EXPECT_EQ(ended.status, 0) << ended.err;
  }
}

TEST_F(Job, SilenceIsNoticedWhileATransportHasTheWords) {
  for (const char* mode : {"carried", "broken"}) {
    for (const int rank : {0, 1}) {
      const Ended ended = run(2, fmt::format("{} {}", mode, rank));
      EXPECT_EQ(ended.status, 75) << ended.err;
      ASSERT_EQ(ended.errors.size(), 1u) << ended.err;
      EXPECT_NE(ended.errors[0].find(fmt::format("rank {} on {} was not heard for ", rank, host_)),
                std::string::npos)
          << ended.errors[0];
    }
  }
}

TEST_F(Job, ErrorsAreNoticedWhileATransportHasTheWords) {
  for (const int rank : {0, 1}) {
    expect_end(run(2, fmt::format("carried-throw {}", rank)), 1,
               fmt::format("rank {} on {}: disk full", rank, host_));
  }
}

TEST_F(Job, EveryRankLearnsWhoWasGivenUp) {
  const Ended ended = run(4, "answer 2");
  std::istringstream out(ended.out);
  int ranks = 0;
  for (std::string line; std::getline(out, line); ++ranks) EXPECT_EQ(line, "absent 2");
  EXPECT_EQ(ranks, 4);
  EXPECT_NE(ended.status, 0);  // such an exchange serves no further sum
  EXPECT_EQ(ended.errors.size(), 1u) << ended.err;
}

// Rank 2 comes 6.7 s after ranks 1 and 3, who wait for 6, but only 3.2 s after rank 0, whose 5 s are what
// counts.
TEST_F(Job, RanksWaitForAsLongAsRankZeroDoes) {
  const Ended ended = run(4, "patience 2");
  EXPECT_EQ(ended.status, 0) << ended.err;
}

TEST_F(Job, RankThatNeverStartsIsNamed) {
  const Ended ended =
      shell(fmt::format("MEZZO_TEST_START_TIMEOUT=3 {} -np 2 '{}' start 1", MEZZO_MPIRUN, MEZZO_TEST_JOB));
  EXPECT_EQ(ended.status, 75) << ended.err;
  ASSERT_EQ(ended.errors.size(), 1u) << ended.err;
  EXPECT_NE(
      ended.errors[0].find("the job has not come up within 3 s (runtime.start_timeout_s): MPI_Init waits "
                           "for rank 1 (stopped, on the host of rank 0)"),
      std::string::npos)
      << ended.errors[0];
}

TEST_F(Job, KilledRankEndsTheJob) {
  for (const int rank : {0, 1}) {
    const Ended ended = run(2, fmt::format("kill {}", rank));
    EXPECT_NE(ended.status, 0);
    EXPECT_LT(ended.seconds, 5.0 * MEZZO_TEST_SLOWNESS);
    EXPECT_LE(ended.errors.size(), 1u) << ended.err;
    EXPECT_EQ(left_behind(), std::vector<std::string>());
  }
}

// Launchers other than Open MPI's mpirun need MPI_Abort.
TEST_F(Job, ErrorIsEndedByMpiAloneWhereTheLauncherDoesNot) {
  const Ended ended =
      shell(fmt::format("MEZZO_TEST_SLOW_ABORT=1 {} -np 2 env -u OMPI_COMM_WORLD_SIZE '{}' throw-busy 1",
                        MEZZO_MPIRUN, MEZZO_TEST_JOB));
  expect_end(ended, 1, fmt::format("rank 1 on {}: disk full", host_), 1.5);
  // Not mpirun's own words: Open MPI 4.1 now and then garbles those of several ranks.
  EXPECT_NE(ended.err.find("MPI_Abort is called"), std::string::npos) << ended.err;
}

// ---- launchers that do not fit ----

TEST_F(Job, RanksThatMpiDoesNotSeeAreAnError) {
  const Ended ended = shell(fmt::format("PMI_RANK=0 PMI_SIZE=2 '{}' ok", MEZZO_TEST_JOB));
  EXPECT_EQ(ended.status, 2);
  ASSERT_EQ(ended.errors.size(), 1u) << ended.err;
  EXPECT_NE(ended.errors[0].find("the launcher started 2 ranks (PMI_SIZE)"), std::string::npos)
      << ended.errors[0];

  const Ended other = shell(fmt::format("PMI_RANK=1 PMI_SIZE=2 '{}' ok", MEZZO_TEST_JOB));
  EXPECT_EQ(other.status, 2);
  EXPECT_EQ(other.errors, std::vector<std::string>());  // rank 0 has said it
}

TEST_F(Job, OneProcessOfABatchScriptIsAJobOfOneRank) {
  const Ended ended = shell(fmt::format("SLURM_PROCID=0 SLURM_NTASKS=4 '{}' ok", MEZZO_TEST_JOB));
  EXPECT_EQ(ended.status, 0) << ended.err;
}

}  // namespace
}  // namespace mezzo
