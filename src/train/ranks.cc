#include "mezzo/train/ranks.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "mezzo/comm/together.h"

namespace mezzo {

void choose_together(Exchange& exchange, Backend& backend, const Workload& workload,
                     const std::map<std::string, std::string>& recorded, Patience patience) {
  const auto choose = [&](const std::map<std::string, std::string>& wanted) {
    backend.keep(wanted);
    backend.choose(workload);
  };
  const bool leads = exchange.rank() == 0;
  together(exchange, patience, [&] {
    if (leads) choose(recorded);
  });
  const std::string chosen = leads ? nlohmann::json(backend.fingerprint()).dump() : "";
  const nlohmann::json of_rank_0 = nlohmann::json::parse(agree(exchange, chosen, patience)[0]);
  together(exchange, patience, [&] {
    if (!leads) choose(of_rank_0.get<std::map<std::string, std::string>>());
  });
}

std::unique_ptr<Transport> make_transport(Exchange& exchange, const Backend& backend, std::size_t words,
                                          Patience patience) {
  if (exchange.size() == 1 || backend.native_stream() == nullptr || !has_nccl()) return nullptr;
  return make_nccl_transport(exchange, backend.native_stream(), words, patience);
}

double exchange_seconds(Exchange& exchange, Transport* transport, std::size_t words, Patience patience) {
  constexpr int repetitions = 21;
  std::vector<std::uint64_t> zeros(words);
  std::vector<double> times;
  for (int i = -1; i < repetitions; ++i) {  // the first brings the connections up
    require_complete(exchange, exchange.sum({}, patience));
    const auto start = std::chrono::steady_clock::now();
    require_complete(exchange, exchange.sum(zeros, patience, transport));
    if (i >= 0) times.push_back(Seconds(std::chrono::steady_clock::now() - start).count());
  }
  std::ranges::sort(times);
  return times[times.size() / 2];
}

}  // namespace mezzo
