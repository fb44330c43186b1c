// What the system leaves a process: each case is a folder that stands for /, as kernels and container
// runtimes were seen to fill it.
#include "mezzo/core/limits.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>

#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

constexpr std::size_t gib = std::size_t{1} << 30;

class Limits : public testing::Test {
 protected:
  Limits() { put("proc/meminfo", "MemTotal: 67108864 kB\nMemFree: 1024 kB\nMemAvailable:   33554432 kB\n"); }

  void put(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ / path).parent_path());
    root_.write(path, text);
  }
  /// A machine of version 2 alone, as seen outside containers.
  void version_2(const std::string& group) {
    put("proc/self/cgroup", "0::" + group + "\n");
    put("proc/self/mountinfo",
        "24 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
  }
  /// A machine of version 1, where /sys/fs/cgroup/memory shows the group `top`.
  void version_1(const std::string& group, const std::string& top = "/") {
    put("proc/self/cgroup", "9:name=systemd:/\n4:memory:" + group + "\n2:cpu,cpuacct:" + group + "\n0::/\n");
    put("proc/self/mountinfo", "32 31 0:29 " + top +
                                   " /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
                                   "35 31 0:32 " +
                                   top +
                                   " /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                                   "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  }
  std::size_t memory(int sharers = 1) const { return available_memory(sharers, root_.path()); }
  std::optional<int> quota() const { return processor_quota(root_.path()); }

  const test::ScratchFolder root_;
};

TEST_F(Limits, OfAMachineWithoutGroupsAreWhatItHasLeft) {
  EXPECT_EQ(memory(), 32 * gib);
  EXPECT_EQ(memory(4), 8 * gib);
  EXPECT_EQ(quota(), std::nullopt);
  put("proc/meminfo", "MemTotal: 67108864 kB\n");
  EXPECT_THROW(memory(), DeviceError);
}

// Slurm's way: the limit is the job's, three levels above the process's own group.
TEST_F(Limits, OfEveryGroupUpToTheRootCount) {
  version_2("/system.slice/slurmstepd.scope/job_5/step_0/user/task_0");
  const std::string job = "sys/fs/cgroup/system.slice/slurmstepd.scope/job_5/";
  put(job + "memory.max", "8589934592\n");
  put(job + "memory.current", "1073741824\n");
  put(job + "memory.stat", "anon 1\ninactive_file 268435456\nactive_file 268435456\nworkingset_nodes 7\n");
  put(job + "step_0/user/task_0/memory.max", "max\n");
  put(job + "step_0/user/task_0/memory.current", "1048576\n");
  EXPECT_EQ(memory(), 8 * gib - gib / 2);  // cached pages are given up before memory is refused
  EXPECT_EQ(memory(2), 4 * gib - gib / 4);
  put(job + "step_0/user/task_0/memory.max", "2147483648\n");
  EXPECT_EQ(memory(), 2 * gib - (gib >> 10));
}

TEST_F(Limits, MemoryHighSlowsDownAndSoIsALimit) {
  version_2("/user.slice");
  put("sys/fs/cgroup/user.slice/memory.max", "max\n");
  put("sys/fs/cgroup/user.slice/memory.high", "4294967296\n");
  put("sys/fs/cgroup/user.slice/memory.current", "1073741824\n");
  EXPECT_EQ(memory(), 3 * gib);
}

TEST_F(Limits, OfAGroupThatIsFullAreZero) {
  version_2("/full");
  put("sys/fs/cgroup/full/memory.max", "1073741824\n");
  put("sys/fs/cgroup/full/memory.current", "1073745920\n");
  EXPECT_EQ(memory(), 0u);
}

TEST_F(Limits, OfVersion1Count) {
  version_1("/slurm/uid_1000/job_7/step_0/task_0");
  const std::string job = "sys/fs/cgroup/memory/slurm/uid_1000/job_7/";
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");  // none
  put(job + "memory.limit_in_bytes", "4294967296\n");
  put(job + "memory.usage_in_bytes", "2147483648\n");
  put(job + "memory.stat",
      "inactive_file 1\nhierarchical_memory_limit 4294967296\ntotal_inactive_file 1073741824\n"
      "total_active_file 0\n");
  EXPECT_EQ(memory(), 3 * gib);
  put("sys/fs/cgroup/cpu,cpuacct/slurm/uid_1000/cpu.cfs_quota_us", "350000\n");
  put("sys/fs/cgroup/cpu,cpuacct/slurm/uid_1000/cpu.cfs_period_us", "100000\n");
  put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota(), 3);
}

// A container without a namespace of its own for groups: paths are the host's, its own group is the mount.
TEST_F(Limits, OfAContainerThatShowsItsOwnGroupOnly) {
  version_1("/docker/5b1e", "/docker/5b1e");
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n");
  put("sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n");
  EXPECT_EQ(memory(), gib);
  // One that does not even know where it is: its group is not below what is mounted.
  version_1("/kubepods/pod1", "/docker/5b1e");
  EXPECT_EQ(memory(), gib);
  // A limit of a group that the container cannot see.
  put("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 1610612736\n");
  EXPECT_EQ(memory(), gib / 2);
}

TEST_F(Limits, OfAContainerWithANamespaceForGroups) {
  version_2("/");
  put("sys/fs/cgroup/memory.max", "1073741824\n");
  put("sys/fs/cgroup/memory.current", "0\n");
  put("sys/fs/cgroup/cpu.max", "200000 100000\n");
  EXPECT_EQ(memory(), gib);
  EXPECT_EQ(quota(), 2);
}

TEST_F(Limits, FoldersMayHaveBlanks) {
  put("proc/self/cgroup", "0::/a b\n");
  put("proc/self/mountinfo", "35 24 0:30 / /mnt/control\\040groups rw - cgroup2 none rw\n");
  put("mnt/control groups/a b/memory.max", "1073741824\n");
  EXPECT_EQ(memory(), gib);
}

TEST_F(Limits, OfTimeAreTheLeastOnTheWayUp) {
  version_2("/pod/container");
  put("sys/fs/cgroup/pod/container/cpu.max", "max 100000\n");
  EXPECT_EQ(quota(), std::nullopt);
  put("sys/fs/cgroup/pod/container/cpu.max", "1600000 100000\n");
  put("sys/fs/cgroup/pod/cpu.max", "450000 100000\n");
  EXPECT_EQ(quota(), 4);
  put("sys/fs/cgroup/pod/container/cpu.max", "50000 100000\n");
  EXPECT_EQ(quota(), 1);  // half a processor is one that pauses
}

TEST_F(Limits, OfTheProcessItselfAreNotShared) {
  put("proc/self/limits",
      "Limit                     Soft Limit           Hard Limit           Units     \n"
      "Max data size             unlimited            unlimited            bytes     \n"
      "Max address space         4294967296           unlimited            bytes     \n");
  put("proc/self/status", "Name:\tmezzo\nVmPeak:\t 2097152 kB\nVmSize:\t 1048576 kB\nVmData:\t  524288 kB\n");
  // Less 128 MiB, less a quarter.
  EXPECT_EQ(memory(), (3 * gib - gib / 8) / 4 * 3);
  EXPECT_EQ(memory(4), (3 * gib - gib / 8) / 4 * 3);
  EXPECT_EQ(memory(16), 2 * gib);
  put("proc/self/limits",
      "Max data size   1073741824   unlimited   bytes\nMax address space 4294967296 1 bytes\n");
  EXPECT_EQ(memory(), (gib / 2 - gib / 8) / 4 * 3);
  put("proc/self/limits", "Max data size   536870912   unlimited   bytes\n");
  EXPECT_EQ(memory(), 0u);
}

TEST(LimitsHere, AreBoundedByUlimit) {
  const pid_t child = fork();
  if (child == 0) {
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const std::size_t used = pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const rlimit limit{used + gib / 4, RLIM_INFINITY};
    if (setrlimit(RLIMIT_AS, &limit) != 0) _exit(1);
    const std::size_t left = available_memory(1);
    _exit(left <= gib / 8 && left > gib / 16 ? 0 : 2);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the address sanitizer's shadow is larger than any limit";
#endif
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(LimitsHere, AreTheRealOnes) {
  EXPECT_GT(available_memory(1), 0u);
  const ProcessorSet processors = allowed_processors();
  ASSERT_FALSE(processors.empty());
  EXPECT_EQ(processor_set(text_of(processors)), processors);
}

// ---- processors -------------------------------------------------------------------------------------------

ProcessorSet range(int begin, int end) {
  ProcessorSet set;
  for (int i = begin; i < end; ++i) set.push_back(i);
  return set;
}

std::vector<int> threads(const std::vector<ProcessorSet>& processes, std::optional<int> quota = {}) {
  std::vector<int> all;
  for (std::size_t i = 0; i < processes.size(); ++i) all.push_back(fair_threads(processes, i, quota));
  return all;
}

TEST(FairThreads, UnboundRanksShareTheirCpuset) {
  EXPECT_EQ(threads({range(0, 8), range(0, 8), range(0, 8), range(0, 8)}), std::vector<int>({2, 2, 2, 2}));
  EXPECT_EQ(threads({range(4, 12)}), std::vector<int>{8});
  EXPECT_EQ(threads({range(0, 6), range(0, 6), range(0, 6)}), std::vector<int>({2, 2, 2}));  // six thirds
}

TEST(FairThreads, BoundRanksHaveTheirs) {
  EXPECT_EQ(threads({range(0, 4), range(4, 8)}), std::vector<int>({4, 4}));
  // Two to a socket.
  EXPECT_EQ(threads({range(0, 8), range(0, 8), range(8, 16), range(8, 16)}), std::vector<int>({4, 4, 4, 4}));
  // One bound, one not: 2 of its own and half of the other 2.
  EXPECT_EQ(threads({range(0, 2), range(0, 4)}), std::vector<int>({1, 3}));
}

TEST(FairThreads, ThereIsAlwaysOne) {
  EXPECT_EQ(threads({range(0, 1), range(0, 1), range(0, 1)}), std::vector<int>({1, 1, 1}));
  EXPECT_EQ(threads({range(0, 8), range(0, 8)}, 1), std::vector<int>({1, 1}));
}

TEST(FairThreads, AQuotaIsSharedByAll) {
  EXPECT_EQ(threads({range(0, 64), range(0, 64)}, 6), std::vector<int>({3, 3}));
  EXPECT_EQ(threads({range(0, 2), range(2, 4)}, 64), std::vector<int>({2, 2}));
}

TEST(ProcessorSets, TravelAsText) {
  EXPECT_EQ(text_of({0, 1, 2, 5, 17, 18}), "0-2,5,17-18");
  EXPECT_EQ(processor_set("0-2,5,17-18"), ProcessorSet({0, 1, 2, 5, 17, 18}));
  EXPECT_EQ(processor_set("7"), ProcessorSet({7}));
  EXPECT_EQ(processor_set(text_of({})), ProcessorSet());
  for (const char* wrong : {",", "1,", "1,,2", "a", "1 2", "-1", "1-", "3-1", "0-2000000000"})
    EXPECT_THROW(processor_set(wrong), Error) << wrong;
}

}  // namespace
}  // namespace mezzo
