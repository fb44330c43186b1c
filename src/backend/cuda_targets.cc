#include "cuda_targets.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

constexpr int oldest_major = 8;  // the kernels use what came with 8.0

CudaTarget parse_target(std::string_view text) {
  CudaTarget target;
  int number = 0;  // 90: 9.0; 120: 12.0
  const char* const end = text.data() + text.size();
  const auto [past, error] = std::from_chars(text.data(), end, number);
  std::string_view rest(past, static_cast<std::size_t>(end - past));
  if (rest.starts_with('a') || rest.starts_with('f')) {
    target.feature_set = rest.front();
    rest.remove_prefix(1);
  }
  target.ptx = rest != "-real";
  const bool is_known = rest.empty() || rest == "-real" || rest == "-virtual";
  if (error != std::errc() || number < 10 || !is_known)
    throw Error("CUDA architecture: found {}, expected one like 90, 90a-real or 90-virtual", text);
  target.major = number / 10;
  target.minor = number % 10;
  return target;
}

bool runs(const CudaTarget& target, int major, int minor) {
  const bool same_major = major == target.major;
  if (target.feature_set == 'a') return same_major && minor == target.minor;
  if (same_major) return minor >= target.minor;
  return target.ptx && target.feature_set == 0 && major > target.major;
}

/// "9.0 or later", "9.0 to 9.9", "9.0 alone".
std::string cards_of(const CudaTarget& target) {
  const std::string first = fmt::format("{}.{}", target.major, target.minor);
  if (target.feature_set == 'a') return first + " alone";
  if (target.ptx && target.feature_set == 0) return first + " or later";
  return fmt::format("{} to {}.9", first, target.major);
}

}  // namespace

std::vector<CudaTarget> parse_cuda_targets(std::string_view list) {
  std::vector<CudaTarget> targets;
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    targets.push_back(parse_target(list.substr(0, comma)));
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return targets;
}

std::string trouble_with_capability(int major, int minor, const std::vector<CudaTarget>& targets) {
  if (major < oldest_major) {
    return fmt::format("has compute capability {}.{}, expected {}.0 or later", major, minor, oldest_major);
  }
  if (std::ranges::any_of(targets, [&](const CudaTarget& t) { return runs(t, major, minor); })) return "";
  std::vector<std::string> cards;
  for (const CudaTarget& target : targets) cards.push_back(cards_of(target));
  return fmt::format("has compute capability {}.{}, but this build has device code for {}", major, minor,
                     fmt::join(cards, ", "));
}

}  // namespace mezzo
