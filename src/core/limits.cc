#include "mezzo/core/limits.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t unlimited = SIZE_MAX;
constexpr std::size_t most_processors = std::size_t{1} << 20;

std::size_t left_of(std::size_t limit, std::size_t used) { return limit - std::min(limit, used); }

/// The number that a file begins with, or `otherwise` ("max", -1, no such file).
std::size_t number_in(const fs::path& path, std::size_t otherwise) {
  std::ifstream file(path);
  std::string word;
  std::size_t value = 0;
  file >> word;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  return error == std::errc() && end == word.data() + word.size() ? value : otherwise;
}

/// The number behind `key` in a file of lines "key number ...", or `otherwise`.
std::size_t number_behind(const fs::path& path, std::string_view key, std::size_t otherwise) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    std::istringstream rest(line.substr(key.size()));
    std::size_t value = 0;
    if (std::isspace(rest.peek()) != 0 && rest >> value) return value;
  }
  return otherwise;
}

// ---- control groups ---------------------------------------------------------------------------------------

/// Whether `word` stands in a list with commas.
bool lists(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    if (list.substr(0, comma) == word) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

/// A path of mountinfo, where blanks are written as \040 and the like.
std::string unescaped(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    const char* digits = text.data() + i + 1;
    const bool escape = text[i] == '\\' && i + 3 < text.size();
    if (escape && std::from_chars(digits, digits + 3, value, 8).ptr == digits + 3) {
      out += static_cast<char>(value);
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

/// A hierarchy of control groups as this process sees it.
struct Mount {
  std::string point;  ///< the folder that shows it
  std::string top;    ///< the group that this folder is
};

/// Where `controller`'s hierarchy of version 1, or with "" that of version 2, is mounted.
std::optional<Mount> find_mount(const std::string& root, std::string_view controller) {
  std::ifstream file(root + "/proc/self/mountinfo");
  // "id parent device top point options [tag ...] - type source options"
  for (std::string line; std::getline(file, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream front(line.substr(0, dash));
    std::istringstream back(line.substr(dash + 3));
    std::string id, parent, device, top, point, type, source, options;
    front >> id >> parent >> device >> top >> point;
    back >> type >> source >> options;
    const bool wanted =
        controller.empty() ? type == "cgroup2" : type == "cgroup" && lists(options, controller);
    if (wanted) return Mount{unescaped(point), unescaped(top)};
  }
  return std::nullopt;
}

/// The path of this process's group in that hierarchy.
std::optional<std::string> find_group(const std::string& root, std::string_view controller) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "id:controllers:path"
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string_view controllers = std::string_view(line).substr(first + 1, second - first - 1);
    if (controller.empty() ? controllers.empty() : lists(controllers, controller))
      return line.substr(second + 1);
  }
  return std::nullopt;
}

/// The folders of this process's groups in a hierarchy, its own first. A group above the mounted one, which a
/// container does not see, is not among them.
std::vector<fs::path> groups(const std::string& root, std::string_view controller) {
  const std::optional<Mount> mount = find_mount(root, controller);
  const std::optional<std::string> group = find_group(root, controller);
  if (!mount || !group) return {};
  const fs::path point = root + mount->point;
  fs::path below = fs::path(*group).lexically_relative(mount->top);
  if (below.empty() || *below.begin() == "..") below = ".";  // not in the part that is mounted
  std::vector<fs::path> folders;
  for (fs::path at = below; !at.empty() && at != "."; at = at.parent_path()) folders.push_back(point / at);
  folders.push_back(point);
  return folders;
}

std::size_t memory_left_by_groups(const std::string& root) {
  std::size_t left = unlimited;
  // What a group may still take. Cached pages of files, two keys of memory.stat, are given back when needed.
  const auto take = [&](const fs::path& group, std::size_t limit, const char* usage, const char* inactive,
                        const char* active) {
    const fs::path stat = group / "memory.stat";
    const std::size_t cached = number_behind(stat, inactive, 0) + number_behind(stat, active, 0);
    left = std::min(left, left_of(limit, left_of(number_in(group / usage, 0), cached)));
  };
  for (const fs::path& group : groups(root, "")) {
    // Beyond memory.high the kernel slows a group down until it is below again.
    const std::size_t limit =
        std::min(number_in(group / "memory.max", unlimited), number_in(group / "memory.high", unlimited));
    take(group, limit, "memory.current", "inactive_file", "active_file");
  }
  for (const fs::path& group : groups(root, "memory")) {
    // The second has the limits of groups that are not mounted here in it.
    const std::size_t limit =
        std::min(number_in(group / "memory.limit_in_bytes", unlimited),
                 number_behind(group / "memory.stat", "hierarchical_memory_limit", unlimited));
    take(group, limit, "memory.usage_in_bytes", "total_inactive_file", "total_active_file");
  }
  return left;
}

// ---- the process's own limits -----------------------------------------------------------------------------

/// What ulimit -v and -d leave for a plan. Stacks, heaps and the buffers of a BLAS come on top of it.
std::size_t memory_left_by_limits(const std::string& root) {
  const std::string limits = root + "/proc/self/limits";  // "Max address space  soft  hard  bytes"
  const std::string status = root + "/proc/self/status";  // "VmSize:  n kB"
  const auto left = [&](std::string_view limit, std::string_view used) {
    const std::size_t most = number_behind(limits, limit, unlimited);
    return most == unlimited ? most : left_of(most, number_behind(status, used, 0) * 1024);
  };
  const std::size_t all = std::min(left("Max address space", "VmSize:"), left("Max data size", "VmData:"));
  return all == unlimited ? all : left_of(all, blas_buffer_bytes) / 4 * 3;
}

}  // namespace

std::size_t available_memory(int sharers, const std::string& root) {
  const std::size_t kib = number_behind(root + "/proc/meminfo", "MemAvailable:", 0);
  if (kib == 0) {
    throw DeviceError("/proc/meminfo does not say how much memory is available (MemAvailable)");
  }
  const std::size_t shared = std::min(kib * 1024, memory_left_by_groups(root));
  return std::min(shared / static_cast<std::size_t>(std::max(1, sharers)), memory_left_by_limits(root));
}

std::optional<int> processor_quota(const std::string& root) {
  std::optional<int> processors;
  const auto take = [&](std::size_t quota, std::size_t period) {
    if (quota == unlimited || period == 0) return;
    const auto here = static_cast<int>(std::clamp<std::size_t>(quota / period, 1, INT32_MAX));
    processors = std::min(processors.value_or(here), here);
  };
  for (const fs::path& group : groups(root, "")) {
    std::ifstream file(group / "cpu.max");  // "quota period" in microseconds, quota may be "max"
    std::size_t quota = 0;
    std::size_t period = 0;
    if (file >> quota >> period) take(quota, period);
  }
  for (const fs::path& group : groups(root, "cpu")) {
    take(number_in(group / "cpu.cfs_quota_us", unlimited), number_in(group / "cpu.cfs_period_us", 0));
  }
  return processors;
}

ProcessorSet allowed_processors() {
  // The kernel refuses a mask that is smaller than its own.
  for (std::size_t most = 1024; most <= most_processors; most *= 2) {
    std::vector<cpu_set_t> mask(CPU_ALLOC_SIZE(most) / sizeof(cpu_set_t));
    const std::size_t bytes = mask.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, mask.data()) != 0) continue;
    ProcessorSet processors;
    for (std::size_t i = 0; i < most; ++i) {
      if (CPU_ISSET_S(i, bytes, mask.data())) processors.push_back(static_cast<int>(i));
    }
    if (!processors.empty()) return processors;
  }
  ProcessorSet all(std::max(1u, std::thread::hardware_concurrency()));
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
  return all;
}

std::string text_of(const ProcessorSet& processors) {
  std::string text;
  for (std::size_t begin = 0, end = 0; begin < processors.size(); begin = end) {
    end = begin + 1;
    while (end < processors.size() && processors[end] == processors[end - 1] + 1) ++end;
    text += (text.empty() ? "" : ",") + std::to_string(processors[begin]);
    if (end - begin > 1) text += "-" + std::to_string(processors[end - 1]);
  }
  return text;
}

ProcessorSet processor_set(std::string_view text) {
  const auto refuse = [&] { throw Error("found \"{}\", expected processors such as 0-3,8", text); };
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto number = [&] {
    int value = 0;
    const auto [stop, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value < 0) refuse();
    at = stop;
    return value;
  };
  const auto take = [&](char c) {
    const bool here = at != end && *at == c;
    if (here) ++at;
    return here;
  };
  ProcessorSet processors;
  if (text.empty()) return processors;
  do {
    const int first = number();
    const int last = take('-') ? number() : first;
    if (last < first || static_cast<std::size_t>(last - first) >= most_processors) refuse();
    for (int processor = first; processor <= last; ++processor) processors.push_back(processor);
  } while (take(','));
  if (at != end) refuse();
  return processors;
}

int fair_threads(std::span<const ProcessorSet> processes, std::size_t own, std::optional<int> quota) {
  double share = 0;
  for (const int processor : processes[own]) {
    const auto users = std::ranges::count_if(
        processes, [&](const ProcessorSet& set) { return std::ranges::find(set, processor) != set.end(); });
    share += 1.0 / static_cast<double>(users);
  }
  constexpr double rounding = 1e-6;  // of a sum of thirds that is to be a whole number
  const int threads = static_cast<int>(share + rounding);
  const int most = quota ? *quota / static_cast<int>(processes.size()) : threads;
  return std::max(1, std::min(threads, most));
}

}  // namespace mezzo
