#include "mezzo/comm/exchange.h"

#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>

#include "error_line.h"
#include "mpi_exchange.h"

namespace mezzo {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
}

class SelfExchange final : public Exchange {
 public:
  SelfExchange() : Exchange(0, {{.name = host_name(), .first_rank = 0}}) {}

  ExchangeResult sum(std::span<std::uint64_t>, Patience, Transport*) override { return {}; }
  std::string library() const override { return ""; }

  [[noreturn]] void abort(ExitCode code, const std::string& message) override {
    write_error_line(message);
    std::fflush(stdout);
    std::_Exit(static_cast<int>(code));
  }
};

}  // namespace

bool Exchange::share_host(int rank, int other) const {
  return hosts_.at(static_cast<std::size_t>(rank)).first_rank ==
         hosts_.at(static_cast<std::size_t>(other)).first_rank;
}

int Exchange::local_rank() const {
  int place = 0;
  for (int other = 0; other < rank_; ++other) place += share_host(other, rank_) ? 1 : 0;
  return place;
}

int Exchange::local_size() const {
  int ranks = 0;
  for (int other = 0; other < size(); ++other) ranks += share_host(other, rank_) ? 1 : 0;
  return ranks;
}

std::unique_ptr<Exchange> make_self_exchange() { return std::make_unique<SelfExchange>(); }

std::unique_ptr<Exchange> make_exchange(int& argc, char**& argv, Seconds start_timeout) {
  const std::optional<Launch> launch = launch_from_environment();
  if (!launch || launch->size == 1) return make_self_exchange();
  return make_mpi_exchange(argc, argv, *launch, start_timeout);
}

}  // namespace mezzo
