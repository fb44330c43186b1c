#include "mezzo/comm/exchange.h"

#include <unistd.h>

#include <algorithm>
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
  SelfExchange() : Exchange(0, {host_name()}) {}

  ExchangeResult sum(std::span<std::uint64_t>, Patience, Transport*) override { return {}; }
  std::string library() const override { return ""; }

  [[noreturn]] void abort(ExitCode code, const std::string& message) override {
    write_error_line(message);
    std::fflush(stdout);
    std::_Exit(static_cast<int>(code));
  }
};

}  // namespace

int Exchange::local_rank() const {
  return static_cast<int>(std::count(hosts_.begin(), hosts_.begin() + rank_, host()));
}

int Exchange::local_size() const {
  return static_cast<int>(std::count(hosts_.begin(), hosts_.end(), host()));
}

std::unique_ptr<Exchange> make_self_exchange() { return std::make_unique<SelfExchange>(); }

std::unique_ptr<Exchange> make_exchange(int& argc, char**& argv) {
  const std::optional<Launch> launch = launch_from_environment();
  if (!launch || launch->size == 1) return make_self_exchange();
  return make_mpi_exchange(argc, argv, *launch);
}

}  // namespace mezzo
