// A build without MPI, linked from mpi_absent.cc, and the choice of the exchange.
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

#include "mezzo/comm/together.h"

namespace mezzo {
namespace {

/// Launcher variables for one test, as "NAME=value NAME=value"; all others unset.
class Launched {
 public:
  explicit Launched(const std::string& variables) {
    clear();
    std::istringstream words(variables);
    for (std::string word; words >> word;) {
      const std::size_t equals = word.find('=');
      setenv(word.substr(0, equals).c_str(), word.substr(equals + 1).c_str(), 1);
    }
  }
  ~Launched() { clear(); }
  Launched(const Launched&) = delete;
  Launched& operator=(const Launched&) = delete;

 private:
  static void clear() {
    for (const char* name : {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE",
                             "PMIX_RANK", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}) {
      unsetenv(name);
    }
  }
};

std::unique_ptr<Exchange> make() {
  int argc = 0;
  char** argv = nullptr;
  return make_exchange(argc, argv, Seconds(120));
}

TEST(MakeExchange, IsOneRankWithoutALauncherOfSeveral) {
  for (const char* variables : {"", "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1", "PMI_RANK=0 PMI_SIZE=1",
                                "SLURM_PROCID=0 SLURM_NTASKS=4",  // a batch script's own shell
                                "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1", "PMI_RANK=many PMI_SIZE=-2"}) {
    const Launched launched(variables);
    const auto exchange = make();
    EXPECT_EQ(exchange->rank(), 0) << variables;
    EXPECT_EQ(exchange->size(), 1) << variables;
  }
}

TEST(MakeExchange, SeveralRanksNeedMpi) {
  struct Case {
    const char* variables;
    const char* said;
  };
  for (const Case& c :
       {Case{"OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4", "4 ranks (OMPI_COMM_WORLD_SIZE is set)"},
        Case{"PMI_RANK=0 PMI_SIZE=2", "2 ranks (PMI_SIZE is set)"},
        Case{"SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=8", "8 ranks (SLURM_STEP_NUM_TASKS is set)"},
        Case{"PMIX_RANK=0", "several ranks (PMIX_RANK is set)"}}) {
    const Launched launched(c.variables);
    try {
      make();
      FAIL() << c.variables << " was not noticed";
    } catch (const UsageError& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find("no MPI"), text.npos) << text;
      EXPECT_NE(text.find(c.said), text.npos) << text;
    }
  }
}

TEST(MakeExchange, MpirunWithinSlurmIsWhatCounts) {
  const Launched launched(
      "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1 SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2");
  EXPECT_EQ(make()->size(), 1);
}

TEST(SelfExchange, SumIsWhatItBrought) {
  const auto exchange = make_self_exchange();
  std::vector<std::uint64_t> words{1, 0x7ff8dead0000beefu, 0};
  EXPECT_TRUE(exchange->sum(words, {Seconds(0), Seconds(0)}).complete());
  EXPECT_EQ(words, (std::vector<std::uint64_t>{1, 0x7ff8dead0000beefu, 0}));
  EXPECT_EQ(exchange->local_rank(), 0);
  EXPECT_EQ(exchange->local_size(), 1);
}

TEST(ReportFailure, IsOneLineAndTheStatus) {
  const auto exchange = make_self_exchange();
  testing::internal::CaptureStderr();
  EXPECT_EQ(report_failure(exchange.get(), UsageError("config.yaml:3: unknown key\r\n'modle'")), 2);
  EXPECT_EQ(report_failure(exchange.get(), RankFailed(ExitCode::usage, "told")), 2);
  EXPECT_EQ(report_failure(exchange.get(), std::runtime_error("from a library")), 1);
  EXPECT_EQ(report_failure(exchange.get(), std::bad_alloc()), 1);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "mezzo: error: config.yaml:3: unknown key  'modle'\n"
            "mezzo: error: told\n"
            "mezzo: error: from a library\n"
            "mezzo: error: out of memory\n");
}

TEST(ReportFailure, BeforeThereIsAnExchangeRankZeroSpeaks) {
  testing::internal::CaptureStderr();
  {
    const Launched launched("PMI_RANK=0 PMI_SIZE=2");
    EXPECT_EQ(report_failure(nullptr, UsageError("no MPI")), 2);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "mezzo: error: no MPI\n");
  testing::internal::CaptureStderr();
  {
    const Launched launched("PMI_RANK=1 PMI_SIZE=2");
    EXPECT_EQ(report_failure(nullptr, UsageError("no MPI")), 2);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(SelfExchangeDeath, AbortEndsTheProcess) {
  EXPECT_EXIT(make_self_exchange()->abort(ExitCode::usage, "wrong"), testing::ExitedWithCode(2),
              "mezzo: error: wrong");
}

}  // namespace
}  // namespace mezzo
