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

int run(Exchange& exchange, const std::string& mode, const std::set<int>& chosen) {
  const StopSignal stop;  // as in training: TERM alone does not end a rank
  const bool me = chosen.contains(exchange.rank());
  std::vector<std::uint64_t> words(static_cast<std::size_t>(exchange.size()), 0);
  words[static_cast<std::size_t>(exchange.rank())] = 100 + static_cast<std::uint64_t>(exchange.rank());
  const auto step = [&](Seconds timeout) {
    require_complete(exchange, exchange.sum(words, timeout), timeout);
  };
  step(Seconds(20));

  if (mode == "ok") return 0;
  if (mode == "stopped") return static_cast<int>(ExitCode::stopped);

  // At start-up, where all ranks pass a checkpoint.
  if (mode == "open") {
    together(exchange, Seconds(20), [&] {
      if (me) throw InputError("data/train.jsonl:3: found a number, expected a string");
    });
  }
  if (mode == "usage") {
    together(exchange, Seconds(20), [&] {
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
  if (mode == "freeze" && me) raise(SIGSTOP);
  if (mode == "late" && me) sleep(20);
  if (mode == "silence") {  // what the ranks get when the late one comes in the end
    if (me) sleep(0.8);
    std::fill(words.begin(), words.end(), 0);
    words[static_cast<std::size_t>(exchange.rank())] = 100 + static_cast<std::uint64_t>(exchange.rank());
    const ExchangeResult result = exchange.sum(words, Seconds(0.3));
    std::string line = "silent";
    for (const int rank : result.silent) line += fmt::format(" {}", rank);
    line += " sums";
    for (const std::uint64_t word : words) line += fmt::format(" {}", word);
    std::puts(line.c_str());
    std::fflush(stdout);
    sleep(1.5);
    step(Seconds(1));
  }
  if (mode == "patience") {  // rank 0 comes before the others give it up, the chosen in time for rank 0 alone
    if (exchange.rank() == 0) sleep(2.3);
    if (me) sleep(3.6);
    step(Seconds(2));
    return 0;
  }
  if (mode == "mismatch") {
    if (me) words.push_back(0);
  }
  step(mode == "late" || mode == "freeze" ? Seconds(0.5) : Seconds(20));
  return 0;
}

}  // namespace
}  // namespace mezzo

int main(int argc, char** argv) {
  std::unique_ptr<mezzo::Exchange> exchange;
  try {
    exchange = mezzo::make_exchange(argc, argv);
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
