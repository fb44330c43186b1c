// Time of one exchange among the ranks that mpirun started, in microseconds, for the slots of small and large
// steps. Every rank comes at the same moment; what waiting for the slowest costs beyond that is not measured
// here. The last line is what `mezzo estimate` takes for it: time at rank 0 for each other rank and its
// words.
//   mpirun -np 4 exchange_latency [repetitions]
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "mezzo/comm/together.h"

namespace {

void measure(mezzo::Exchange& exchange, std::size_t repetitions) {
  constexpr mezzo::Patience patience{mezzo::Seconds(60), mezzo::Seconds(60)};
  if (exchange.rank() == 0) {
    fmt::print("{} ranks, {} exchanges each\n{:>8} {:>12} {:>12} {:>12}\n", exchange.size(), repetitions,
               "words", "median us", "p99 us", "worst us");
  }
  double of_one_word = 0.0;
  double per_words = 0.0;  // of a thousand, a rank
  for (const std::size_t count : {1u, 100u, 1000u, 10000u, 100000u}) {
    std::vector<double> times;
    std::vector<std::uint64_t> words(count);
    for (std::size_t i = 0; i < repetitions; ++i) {
      std::fill(words.begin(), words.end(), 0);
      const auto begin = std::chrono::steady_clock::now();
      mezzo::require_complete(exchange, exchange.sum(words, patience));
      times.push_back(
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
    }
    std::sort(times.begin(), times.end());
    const double median = times[times.size() / 2];
    if (count == 1) of_one_word = median;
    if (exchange.rank() == 0) {
      fmt::print("{:>8} {:>12.1f} {:>12.1f} {:>12.1f}\n", count, median, times[times.size() * 99 / 100],
                 times.back());
      const double others = exchange.size() - 1;
      if (count == 10000 && others > 0) per_words = (median - of_one_word) / others / 10.0;
    }
  }
  if (exchange.rank() == 0 && exchange.size() > 1) {
    fmt::print("mezzo estimate --exchange-us 0,{:.3g},{:.3g}\n", of_one_word / (exchange.size() - 1),
               per_words);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::unique_ptr<mezzo::Exchange> exchange;
  try {
    exchange = mezzo::make_exchange(argc, argv, mezzo::Seconds(120));
    const long repetitions = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 1000;
    if (repetitions < 1)
      throw mezzo::UsageError("repetitions: found '{}', expected a number of at least 1", argv[1]);
    measure(*exchange, static_cast<std::size_t>(repetitions));
    return 0;
  } catch (const std::exception& error) {
    return mezzo::report_failure(exchange.get(), error);
  }
}
