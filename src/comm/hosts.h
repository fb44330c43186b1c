#pragma once
#include <span>
#include <string>
#include <vector>

#include "mezzo/comm/exchange.h"

namespace mezzo {

/// What a rank says of where it runs.
struct Place {
  std::string name;    ///< of the host
  std::string memory;  ///< shared_memory_identity()
};

/// The same text for processes that can share memory, another one for those of another machine, or of another
/// container on it: the running kernel, and the device behind /dev/shm. "" where the system does not tell.
std::string shared_memory_identity();

/// The host of every rank, by the places of all ranks: equal places are one host. Hosts of one name, as
/// containers of one image often are, get names that differ: the second one's has " #2" behind it, and so on
/// in the order of their first ranks.
std::vector<RankHost> hosts_of(std::span<const Place> ranks);

}  // namespace mezzo
