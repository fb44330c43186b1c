#pragma once
// What the ranks of a job settle about their devices before the first step.
#include <map>
#include <memory>
#include <string>

#include "mezzo/backend/backend.h"
#include "mezzo/comm/exchange.h"

namespace mezzo {

/// Every backend chooses its algorithms for `workload`: rank 0 as `recorded` says where that can be, the
/// others as rank 0 did.
void choose_together(Exchange& exchange, Backend& backend, const Workload& workload,
                     const std::map<std::string, std::string>& recorded, Patience patience);

/// The way of sums of up to `words` words between the ranks' devices: NCCL between cards. None where the
/// exchange moves words itself: for one rank, on hosts, and in a build without NCCL.
std::unique_ptr<Transport> make_transport(Exchange& exchange, const Backend& backend, std::size_t words,
                                          Patience patience);

/// Median seconds of a sum of `words` words to which all ranks come at the same time.
double exchange_seconds(Exchange& exchange, Transport* transport, std::size_t words, Patience patience);

}  // namespace mezzo
