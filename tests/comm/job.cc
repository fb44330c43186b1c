// A job that goes wrong in the way its first argument says; job_test.cc runs it and looks at what comes out.
//   job MODE [RANK ...]: the ranks to which it happens
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "mezzo/comm/together.h"
#include "mezzo/core/stop_signal.h"

namespace mezzo {
namespace {

void sleep(double seconds) { std::this_thread::sleep_for(Seconds(seconds)); }

/// A sum that is never done.
class Endless final : public Transport {
 public:
  explicit Endless(bool breaks) : breaks_(breaks) {}
  std::string library() const override { return "endless"; }
  void begin(std::span<const std::uint64_t>) override {}
  bool done(std::span<std::uint64_t>) override {
    if (breaks_) throw CommError("the library noticed it first");
    return false;
  }
  void abort() noexcept override {}

 private:
  bool breaks_;
};

int run(Exchange& exchange, const std::string& mode, const std::set<int>& chosen) {
  const StopSignal stop;  // as in training: TERM alone does not end a rank
  const bool me = chosen.contains(exchange.rank());
  std::vector<std::uint64_t> words(static_cast<std::size_t>(exchange.size()), 0);
  words[static_cast<std::size_t>(exchange.rank())] = 100 + static_cast<std::uint64_t>(exchange.rank());
  const auto step = [&](Patience patience) { require_complete(exchange, exchange.sum(words, patience)); };
  const Patience long_enough{Seconds(20), Seconds(20)};
  const Seconds tolerated(1);  // much longer than a busy machine lets a process wait
  step(long_enough);

  if (mode == "ok") return 0;
  if (mode == "stopped") return static_cast<int>(ExitCode::stopped);

  // At start-up, where all ranks pass a checkpoint.
  if (mode == "open") {
    together(exchange, long_enough, [&] {
      if (me) throw InputError("data/train.jsonl:3: found a number, expected a string");
    });
  }
  if (mode == "usage") {
    together(exchange, long_enough, [&] {
      if (me) throw UsageError("train.epochs: unknown key");
    });
  }

  // In the run, where the others learn of it by being ended.
  if (mode == "throw" && me) throw IoError("run/trajectory: cannot write:\nNo space left on device");
  if (mode == "throw-code" && me) throw UsageError("wrong");
  if (mode == "throw-busy") {  // the others do not come to an exchange for a long time
    if (me) throw IoError("disk full");
    sleep(30);
  }
  if (mode == "throw-slow") {  // the chosen fail at once, rank 0 too, but needs a while to get out
    if (me && exchange.rank() != 0) throw IoError("disk full");
    if (exchange.rank() == 0) {
      sleep(0.6);
      throw IoError("disk full");
    }
  }
  if (mode == "kill" && me) raise(SIGKILL);
  if (mode == "freeze" || mode == "straggler") {
    step({tolerated, tolerated});  // from here on heartbeats come that often
    exchange.doing(Phase::forward, 7);
    sleep(0.3);
    if (me && mode == "freeze") raise(SIGSTOP);
    if (me && mode == "straggler") sleep(30);
    // Silence alone counts for the frozen, time alone for the stragglers.
    step(mode == "freeze" ? Patience{tolerated, Seconds(20)} : Patience{Seconds(20), tolerated});
  }
  if (mode == "busy") {  // the chosen work for far longer than a silence may last
    step({tolerated, tolerated});
    if (me) sleep(3);
    step({tolerated, Seconds(20)});
    return 0;
  }
  if (mode == "carried" || mode == "broken") {  // a transport that never ends, or breaks down
    step({tolerated, tolerated});
    exchange.doing(Phase::forward, 7);
    sleep(0.3);
    if (me) raise(SIGSTOP);
    Endless endless(mode == "broken");
    require_complete(exchange, exchange.sum(words, {tolerated, Seconds(20)}, &endless));
  }
  if (mode == "carried-throw") {  // one fails while the others are in a transport
    if (me) throw IoError("disk full");
    Endless endless(false);
    require_complete(exchange, exchange.sum(words, long_enough, &endless));
  }
  if (mode == "answer") {  // what the ranks are told of the chosen, who come too late
    if (me) sleep(2);
    const ExchangeResult result = exchange.sum(words, {Seconds(20), tolerated});
    std::string line = "absent";
    for (const Absence& absence : result.absent) line += fmt::format(" {}", absence.rank);
    std::puts(line.c_str());
    std::fflush(stdout);
    sleep(1.5);
    step(long_enough);
  }
  if (mode == "patience") {  // rank 0 comes late, the chosen in time for rank 0 alone
    if (exchange.rank() == 0) sleep(3.5);
    if (me) sleep(6.7);
    step({Seconds(20), Seconds(5)});
    return 0;
  }
  if (mode == "mismatch") {
    if (me) words.push_back(0);
  }
  step(long_enough);
  return 0;
}

}  // namespace
}  // namespace mezzo

int main(int argc, char** argv) {
  std::unique_ptr<mezzo::Exchange> exchange;
  try {
    // job start RANK: one that never gets as far as MPI_Init
    const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
    if (argc > 2 && argv[1] == std::string("start") && rank != nullptr && argv[2] == std::string(rank)) {
      raise(SIGSTOP);
    }
    const char* seconds = std::getenv("MEZZO_TEST_START_TIMEOUT");
    exchange =
        mezzo::make_exchange(argc, argv, mezzo::Seconds(seconds != nullptr ? std::atof(seconds) : 120));
    if (const char* folder = std::getenv("MEZZO_TEST_PIDS")) {
      std::ofstream(fmt::format("{}/{}", folder, exchange->rank())) << getpid();
    }
    std::set<int> chosen;
    for (int i = 2; i < argc; ++i) chosen.insert(std::stoi(argv[i]));
    return mezzo::run(*exchange, argc > 1 ? argv[1] : "ok", chosen);
  } catch (const std::exception& error) {
    return mezzo::report_failure(exchange.get(), error);
  }
}
