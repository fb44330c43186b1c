#include "mezzo/core/stop_signal.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

using Handler = void (*)(int);

Handler handler_of(int number) {
  struct sigaction action {};
  sigaction(number, nullptr, &action);
  return action.sa_handler;
}

TEST(StopSignal, TakesNoteOfEachOfItsSignals) {
  for (const int number : {SIGTERM, SIGINT, SIGUSR1, SIGHUP}) {
    const StopSignal stop;
    EXPECT_FALSE(stop.requested());
    EXPECT_EQ(stop.number(), 0);
    raise(number);
    EXPECT_TRUE(stop.requested());
    EXPECT_EQ(stop.number(), number);
  }
}

TEST(StopSignal, KeepsTheFirstAndSurvivesRepeats) {
  const StopSignal stop;
  raise(SIGTERM);
  for (const int number : {SIGTERM, SIGUSR1, SIGINT, SIGTERM}) raise(number);
  EXPECT_EQ(stop.number(), SIGTERM);
}

TEST(StopSignal, IsSeenWhicheverThreadGetsTheSignal) {
  const StopSignal stop;
  std::thread([] { raise(SIGUSR1); }).join();
  EXPECT_EQ(stop.number(), SIGUSR1);
}

TEST(StopSignal, GivesTheHandlersBack) {
  signal(SIGUSR1, SIG_IGN);
  {
    const StopSignal stop;
    EXPECT_NE(handler_of(SIGUSR1), Handler{SIG_IGN});
    EXPECT_NE(handler_of(SIGTERM), Handler{SIG_DFL});
  }
  EXPECT_EQ(handler_of(SIGUSR1), Handler{SIG_IGN});
  EXPECT_EQ(handler_of(SIGTERM), Handler{SIG_DFL});
  EXPECT_EQ(handler_of(SIGINT), Handler{SIG_DFL});
  signal(SIGUSR1, SIG_DFL);
}

TEST(StopSignal, AHangUpThatWasIgnoredStaysIgnored) {
  signal(SIGHUP, SIG_IGN);
  {
    const StopSignal stop;
    raise(SIGHUP);
    EXPECT_FALSE(stop.requested());
    raise(SIGTERM);
    EXPECT_EQ(stop.number(), SIGTERM);
  }
  EXPECT_EQ(handler_of(SIGHUP), Handler{SIG_IGN});
  signal(SIGHUP, SIG_DFL);
}

TEST(StopSignal, OneAtATime) {
  {
    const StopSignal stop;
    EXPECT_THROW(StopSignal(), Error);
    raise(SIGTERM);  // the first still serves
    EXPECT_TRUE(stop.requested());
  }
  EXPECT_NO_THROW(StopSignal());
}

TEST(StopSignalDeath, SecondInterruptEndsTheProcess) {
  EXPECT_EXIT(
      {
        const StopSignal stop;
        raise(SIGTERM);
        raise(SIGINT);
        if (!stop.requested()) _exit(1);
        raise(SIGINT);
        _exit(2);
      },
      testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace mezzo
