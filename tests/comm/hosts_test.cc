// Which ranks share a host, and what hosts are called.
#include "hosts.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

namespace mezzo {
namespace {

/// "name:first rank" of every rank.
std::vector<std::string> hosts(const std::vector<Place>& ranks) {
  std::vector<std::string> all;
  for (const RankHost& host : hosts_of(ranks))
    all.push_back(fmt::format("{}:{}", host.name, host.first_rank));
  return all;
}

TEST(Hosts, AreToldApartByName) {
  EXPECT_EQ(hosts({{"a", "x"}, {"a", "x"}, {"b", "x"}, {"a", "x"}}),
            std::vector<std::string>({"a:0", "a:0", "b:2", "a:0"}));
}

TEST(Hosts, OfOneNameAreToldApartByTheirMemory) {
  EXPECT_EQ(
      hosts({{"node", "x"}, {"other", "x"}, {"node", "y"}, {"node", "x"}, {"node", "y"}, {"node", "z"}}),
      std::vector<std::string>({"node:0", "other:1", "node #2:2", "node:0", "node #2:2", "node #3:5"}));
}

TEST(Memory, IsThatOfTheKernelAndTheContainer) {
  const std::string mine = shared_memory_identity();
  EXPECT_FALSE(mine.empty());
  EXPECT_EQ(shared_memory_identity(), mine);
  const pid_t child = fork();
  if (child == 0) {  // as a container has its own
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", "/dev/shm", "tmpfs", 0, nullptr) != 0) {
      _exit(77);
    }
    _exit(shared_memory_identity() == mine ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "mounting needs root";
  EXPECT_EQ(status, 0);
}

/// An exchange that knows hosts and nothing else.
class Ranks final : public Exchange {
 public:
  Ranks(int rank, std::vector<RankHost> hosts) : Exchange(rank, std::move(hosts)) {}
  ExchangeResult sum(std::span<std::uint64_t>, Patience, Transport*) override { return {}; }
  [[noreturn]] void abort(ExitCode, const std::string&) override { std::terminate(); }
  std::string library() const override { return ""; }
};

TEST(Ranks, OfHostsOfOneNameAreCountedApart) {
  const std::vector<RankHost> hosts{{"node", 0}, {"node", 0}, {"node #2", 2}, {"node #2", 2}, {"node #2", 2}};
  EXPECT_EQ(Ranks(1, hosts).local_rank(), 1);
  EXPECT_EQ(Ranks(1, hosts).local_size(), 2);
  EXPECT_EQ(Ranks(2, hosts).local_rank(), 0);
  EXPECT_EQ(Ranks(4, hosts).local_rank(), 2);
  EXPECT_EQ(Ranks(4, hosts).local_size(), 3);
  EXPECT_EQ(Ranks(4, hosts).name_of_rank(3), "rank 3 on node #2");
  EXPECT_TRUE(Ranks(4, hosts).share_host(2, 3));
  EXPECT_FALSE(Ranks(4, hosts).share_host(1, 2));
}

}  // namespace
}  // namespace mezzo
