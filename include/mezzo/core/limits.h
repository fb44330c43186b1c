#pragma once
// What the system lets this process use: the machine's memory and processors, bounded by every control group
// (cgroup, version 1 or 2) that the process is in and by its own resource limits (ulimit).
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mezzo {

/// Bytes of memory that each of `sharers` processes alike may still take: an even share of what the machine
/// and every control group from the process's own up to the root leave, and no more than its own limits of
/// address space and data (ulimit -v, -d) leave beside what is never planned. Cached pages of files count as
/// free. `root` is the folder that stands for /. DeviceError when /proc does not say how much memory the
/// machine has left.
std::size_t available_memory(int sharers, const std::string& root = "/");

/// OpenBLAS maps a buffer of this size for each thread that multiplies, and tries for ever where the system
/// refuses.
inline constexpr std::size_t blas_buffer_bytes = std::size_t{128} << 20;

/// Processors' worth of time that the control groups' quotas leave (cpu.max; cpu.cfs_quota_us), rounded down,
/// at least 1: the least on the way from the process's own group to the root. None without a quota.
std::optional<int> processor_quota(const std::string& root = "/");

/// Numbers of processors, ascending.
using ProcessorSet = std::vector<int>;
/// Those that this process may run on: its affinity, which a cpuset bounds as well. Never empty.
ProcessorSet allowed_processors();

/// As the kernel writes it, "0-3,8". processor_set() reads that, and throws Error for anything else.
std::string text_of(const ProcessorSet& processors);
ProcessorSet processor_set(std::string_view text);

/// Threads for process `own` of those whose sets these are, all on one host: its fair part of its processors,
/// of which each is divided among the processes that may run on it, and of the quota, which is divided among
/// all. At least 1.
int fair_threads(std::span<const ProcessorSet> processes, std::size_t own, std::optional<int> quota);

}  // namespace mezzo
