#include "mezzo/comm/exchange.h"

namespace mezzo {

std::unique_ptr<Transport> make_nccl_transport(Exchange&, void*, std::size_t, Patience) {
  throw CommError("this build of Mezzo has no NCCL; install it and build again");
}

bool has_nccl() { return false; }

}  // namespace mezzo
