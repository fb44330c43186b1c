#include "hosts.h"

#include <sys/stat.h>

#include <fstream>
#include <map>
#include <utility>

namespace mezzo {

// MPI_Comm_split_type(MPI_COMM_TYPE_SHARED) would be MPI's answer, but Open MPI 4.1 tells its own daemons
// apart by host name, and crashes in that call where hosts have one name.
std::string shared_memory_identity() {
  std::string kernel;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), kernel);
  struct stat memory {};
  if (kernel.empty() || stat("/dev/shm", &memory) != 0) return kernel;
  return fmt::format("{}:{}", kernel, memory.st_dev);
}

std::vector<RankHost> hosts_of(std::span<const Place> ranks) {
  std::map<std::pair<std::string, std::string>, RankHost> hosts;  // by name and memory
  std::map<std::string, int> hosts_of_name;
  std::vector<RankHost> of_rank;
  for (const Place& place : ranks) {
    const auto [host, is_new] = hosts.try_emplace({place.name, place.memory});
    if (is_new) {
      const int number = ++hosts_of_name[place.name];
      host->second = {.name = number == 1 ? place.name : fmt::format("{} #{}", place.name, number),
                      .first_rank = static_cast<int>(of_rank.size())};
    }
    of_rank.push_back(host->second);
  }
  return of_rank;
}

}  // namespace mezzo
