// What every rank of a healthy job gets: run on 1, 2 and 4 ranks.
#include "mezzo/comm/exchange.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "mezzo/comm/together.h"
#include "mpi_main.h"

namespace mezzo {
namespace {

constexpr Patience kTimeout{Seconds(20), Seconds(20)};

/// A word that differs for every (writer, place) and uses all 64 bits.
std::uint64_t scrambled(int rank, std::size_t i) {
  std::uint64_t x = (static_cast<std::uint64_t>(rank) << 32) + i + 1;
  x *= 0x9e3779b97f4a7c15u;
  return x ^ (x >> 29);
}

TEST(Exchange, KnowsItsPlace) {
  Exchange& exchange = test::exchange();
  ASSERT_GE(exchange.size(), 1);
  EXPECT_GE(exchange.rank(), 0);
  EXPECT_LT(exchange.rank(), exchange.size());
  // These tests run on one host.
  EXPECT_EQ(exchange.local_rank(), exchange.rank());
  EXPECT_EQ(exchange.local_size(), exchange.size());
  for (int r = 0; r < exchange.size(); ++r) EXPECT_EQ(exchange.host(r), exchange.host());
  EXPECT_FALSE(exchange.host().empty());
}

TEST(Exchange, RanksAreDistinct) {
  Exchange& exchange = test::exchange();
  std::vector<std::uint64_t> words(static_cast<std::size_t>(exchange.size()), 0);
  words[static_cast<std::size_t>(exchange.rank())] = 1;
  ASSERT_TRUE(exchange.sum(words, kTimeout).complete());
  EXPECT_EQ(words, std::vector<std::uint64_t>(words.size(), 1));
}

TEST(Exchange, EveryWriterSBitsArriveWhateverTheLength) {
  Exchange& exchange = test::exchange();
  const auto size = static_cast<std::size_t>(exchange.size());
  // 100003 words are far beyond what MPI sends without a rendezvous.
  for (const std::size_t count : {0u, 1u, 31u, 33u, 257u, 100003u}) {
    std::vector<std::uint64_t> words(count, 0);
    for (std::size_t i = 0; i < count; ++i) {
      if (static_cast<int>(i % size) == exchange.rank()) words[i] = scrambled(exchange.rank(), i);
    }
    ASSERT_TRUE(exchange.sum(words, kTimeout).complete());
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(words[i], scrambled(static_cast<int>(i % size), i)) << "word " << i << " of " << count;
    }
  }
}

TEST(Exchange, DoublesKeepNanPayloadsAndNegativeZero) {
  Exchange& exchange = test::exchange();
  const std::vector<std::uint64_t> patterns{
      0x7ff8000000000000u,
      0xfff8000000000000u,
      0x7ff0000000000001u,
      0x7ff8dead0000beefu,  // NaNs, one signalling
      std::bit_cast<std::uint64_t>(-0.0),
      std::bit_cast<std::uint64_t>(std::numeric_limits<double>::infinity()),
      std::bit_cast<std::uint64_t>(-std::numeric_limits<double>::infinity()),
      std::bit_cast<std::uint64_t>(std::numeric_limits<double>::denorm_min()),
      0xffffffffffffffffu};
  for (int writer = 0; writer < exchange.size(); ++writer) {
    std::vector<std::uint64_t> words(patterns.size(), 0);
    if (exchange.rank() == writer) words = patterns;
    ASSERT_TRUE(exchange.sum(words, kTimeout).complete());
    EXPECT_EQ(words, patterns) << "written by rank " << writer;
  }
}

TEST(Exchange, IsASumModulo2To64) {
  Exchange& exchange = test::exchange();
  std::vector<std::uint64_t> words{0xffffffffffffffffu, static_cast<std::uint64_t>(exchange.rank())};
  ASSERT_TRUE(exchange.sum(words, kTimeout).complete());
  const auto size = static_cast<std::uint64_t>(exchange.size());
  EXPECT_EQ(words[0], std::uint64_t{0} - size);
  EXPECT_EQ(words[1], size * (size - 1) / 2);
}

TEST(Exchange, ManySumsInARowStayInStep) {
  Exchange& exchange = test::exchange();
  const auto size = static_cast<std::size_t>(exchange.size());
  for (std::uint64_t step = 1; step <= 500; ++step) {
    std::vector<std::uint64_t> words(size, 0);
    words[static_cast<std::size_t>(exchange.rank())] = step;
    ASSERT_TRUE(exchange.sum(words, kTimeout).complete());
    ASSERT_EQ(words, std::vector<std::uint64_t>(size, step));
  }
}

TEST(Exchange, TimeoutsOfAnySizeAreAccepted) {
  std::vector<std::uint64_t> words(1, 0);
  for (const double seconds : {1e300, std::numeric_limits<double>::infinity()}) {
    EXPECT_TRUE(test::exchange().sum(words, {Seconds(seconds), Seconds(seconds)}).complete());
  }
}

TEST(Agree, GivesEveryRankSTextInOrder) {
  Exchange& exchange = test::exchange();
  const auto text = [](int rank) {
    return std::string(static_cast<std::size_t>(rank) * 7, 'a') + '\0' + std::to_string(rank);
  };
  const std::vector<std::string> texts = agree(exchange, text(exchange.rank()), kTimeout);
  ASSERT_EQ(texts.size(), static_cast<std::size_t>(exchange.size()));
  for (int r = 0; r < exchange.size(); ++r) EXPECT_EQ(texts[static_cast<std::size_t>(r)], text(r));
}

TEST(Agree, EmptyTextsAreTexts) {
  const std::vector<std::string> texts = agree(test::exchange(), "", kTimeout);
  EXPECT_EQ(texts, std::vector<std::string>(static_cast<std::size_t>(test::exchange().size())));
}

TEST(CheckSame, NamesTheFirstLinesThatDiffer) {
  Exchange& exchange = test::exchange();
  EXPECT_NO_THROW(check_same(exchange, "the config", "seed: 1\nsteps: 2\n", kTimeout));
  if (exchange.size() == 1) GTEST_SKIP() << "needs a second rank";
  const auto said = [&](const std::string& of_rank_1) -> std::string {
    try {
      check_same(exchange, "the config", exchange.rank() == 1 ? of_rank_1 : "seed: 1\n  steps: 2\n",
                 kTimeout);
    } catch (const JobFailed& failed) {
      EXPECT_EQ(failed.exit_code(), ExitCode::usage);
      return failed.what();
    }
    return "nothing thrown";
  };
  const std::string who =
      fmt::format("the config of rank 1 on {0} differs from that of rank 0 on {0}: ", exchange.host());
  EXPECT_EQ(said("seed: 1\n  steps: 3\n"), who + "found steps: 3, expected steps: 2");
  EXPECT_EQ(said("seed: 1\n"), who + "found nothing, expected steps: 2");
  // In blanks alone.
  EXPECT_EQ(said("seed: 1\nsteps: 2\n"),
            who + "found \"steps: 2\", expected \"  steps: 2\" (line 2, column 1)");
  EXPECT_EQ(said("seed: 1\n  steps: 2\t\n"),
            who + "found \"  steps: 2\\t\", expected \"  steps: 2\" (line 2, column 11)");
  EXPECT_EQ(said("seed: 1\n  steps: 2"), who + "found nothing, expected \"\" (line 3, column 1)");
  EXPECT_EQ(said("seed: 1\n  steps: 2\n\n"), who + "found \"\", expected nothing (line 4, column 1)");
  EXPECT_EQ(said("\nseed: 1\n  steps: 2\n"), who + "found nothing, expected seed: 1");
}

TEST(CheckSame, ShowsWhereLongLinesDiffer) {
  Exchange& exchange = test::exchange();
  if (exchange.size() == 1) GTEST_SKIP() << "needs a second rank";
  const std::string line(200, 'x');
  for (const std::string end : {"", "y"}) {
    try {
      check_same(exchange, "the text", line + (exchange.rank() == 1 ? "  " : " ") + end, kTimeout);
      FAIL() << "nothing thrown";
    } catch (const JobFailed& failed) {
      const std::string text = failed.what();
      const std::string shown = "\"..." + std::string(19, 'x');
      EXPECT_NE(
          text.find(fmt::format("found {0}  {1}\", expected {0} {1}\" (line 1, column 202)", shown, end)),
          text.npos)
          << text;
    }
  }
}

TEST(Together, GoesOnWhenNobodyFails) {
  bool ran = false;
  together(test::exchange(), kTimeout, [&] { ran = true; });
  EXPECT_TRUE(ran);
}

/// What JobFailed says on this rank after `step`.
Failure failure_of(const std::function<void()>& step) {
  try {
    together(test::exchange(), kTimeout, step);
  } catch (const JobFailed& failed) {
    return {failed.exit_code(), failed.what()};
  }
  return {ExitCode::done, "nothing thrown"};
}

TEST(Together, ErrorOfAllRanksIsSaidAsItIs) {
  const Failure failure = failure_of([] { throw UsageError("zo.directions: found 0, expected at least 1"); });
  EXPECT_EQ(failure.code, ExitCode::usage);
  EXPECT_EQ(failure.message, "zo.directions: found 0, expected at least 1");
}

TEST(Together, ErrorOfRankZeroIsSaidAsItIs) {
  const Failure failure = failure_of([] {
    if (test::exchange().rank() == 0) throw IoError("run/config.yaml: cannot write: No space left on device");
  });
  EXPECT_EQ(failure.code, ExitCode::error);
  EXPECT_EQ(failure.message, "run/config.yaml: cannot write: No space left on device");
}

TEST(Together, ErrorOfOneRankNamesRankAndHostEverywhere) {
  Exchange& exchange = test::exchange();
  if (exchange.size() == 1) GTEST_SKIP() << "needs a second rank";
  const int last = exchange.size() - 1;
  const Failure failure = failure_of([&] {
    if (exchange.rank() == last) throw InputError("model.safetensors: the header is cut off");
  });
  EXPECT_EQ(failure.code, ExitCode::error);
  EXPECT_EQ(failure.message,
            fmt::format("rank {} on {}: model.safetensors: the header is cut off", last, exchange.host()));
}

TEST(Together, OfDifferentErrorsTheLowestRanksIsSaid) {
  Exchange& exchange = test::exchange();
  if (exchange.size() == 1) GTEST_SKIP() << "needs a second rank";
  const Failure failure = failure_of([&] { throw InputError("error {}", exchange.rank()); });
  EXPECT_EQ(failure.message, fmt::format("rank 0 on {}: error 0", exchange.host()));
}

TEST(Together, CanBeNestedAndUsedAgain) {
  const Failure failure =
      failure_of([] { together(test::exchange(), kTimeout, [] { throw UsageError("inner"); }); });
  EXPECT_EQ(failure.message, "inner");
  together(test::exchange(), kTimeout, [] {});
}

TEST(Together, OtherExceptionsAreErrorsToo) {
  EXPECT_EQ(failure_of([] { throw std::bad_alloc(); }).message, "out of memory");
  EXPECT_EQ(failure_of([] { throw std::runtime_error("from a library"); }).message, "from a library");
}

/// A transport that adds 1 to what it is given, and takes its time for that.
class Loopback final : public Transport {
 public:
  explicit Loopback(Seconds takes) : takes_(takes) {}
  std::string library() const override { return "loopback"; }
  void begin(std::span<const std::uint64_t> words) override {
    words_.assign(words.begin(), words.end());
    begun_ = std::chrono::steady_clock::now();
  }
  bool done(std::span<std::uint64_t> words) override {
    if (std::chrono::steady_clock::now() - begun_ < takes_) return false;
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = words_[i] + 1;
    return true;
  }
  void abort() noexcept override { aborted = true; }
  bool aborted = false;

 private:
  Seconds takes_;
  std::chrono::steady_clock::time_point begun_;
  std::vector<std::uint64_t> words_;
};

TEST(Exchange, LeavesTheWordsToATransport) {
  if (test::exchange().size() == 1) GTEST_SKIP() << "one rank has nothing to transport";
  // On rank 0 it takes longest: the others are at the next sum already, whose words must not be lost.
  Loopback loopback(Seconds(test::exchange().rank() == 0 ? 0.1 : 0.0));
  std::vector<std::uint64_t> words{41};
  ASSERT_TRUE(test::exchange().sum(words, kTimeout, &loopback).complete());
  EXPECT_EQ(words[0], 42u);
  EXPECT_FALSE(loopback.aborted);
  // and goes on without it
  words[0] = 1;
  ASSERT_TRUE(test::exchange().sum(words, kTimeout).complete());
  EXPECT_EQ(words[0], static_cast<std::uint64_t>(test::exchange().size()));
}

TEST(RequireComplete, NamesWhoWasGivenUpAndWhatItWasAt) {
  const Exchange& exchange = test::exchange();
  EXPECT_NO_THROW(require_complete(exchange, {}));
  try {
    require_complete(
        exchange,
        {{{.rank = 0, .alive = false, .waited = Seconds(0.5), .phase = Phase::forward, .step = 17}}});
    FAIL() << "a silent rank was accepted";
  } catch (const RankLost& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::stopped);
    EXPECT_EQ(error.what(),
              fmt::format("rank 0 on {} was not heard for 0.5 s (last seen in the forward of step 17); what "
                          "is on disk is whole: the same command goes on from there",
                          exchange.host()));
  }
  try {
    require_complete(
        exchange, {{{.rank = 0, .alive = true, .waited = Seconds(60), .phase = Phase::loading, .step = 0}}});
    FAIL() << "a straggler was accepted";
  } catch (const RankLost& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("lives, but did not come for 60.0 s (last seen in the loading)"), text.npos) << text;
  }
}

}  // namespace
}  // namespace mezzo
