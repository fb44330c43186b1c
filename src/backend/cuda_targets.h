#pragma once
// Which cards the device code of a build runs on. Text and arithmetic alone, built with and without CUDA.
#include <string>
#include <string_view>
#include <vector>

namespace mezzo {

/// Device code for one compute capability, in the words of CMake's CUDA_ARCHITECTURES.
struct CudaTarget {
  int major = 0;
  int minor = 0;
  char feature_set = 0;  ///< 'a': of this capability alone; 'f': of its family; 0: neither
  /// Whether a driver can compile it for later cards too; without, it runs on cards of the same major number,
  /// from the minor number on.
  bool ptx = true;
};

/// Targets separated by commas: "80-real,90", "90a-real", "90-virtual". Error for anything else.
std::vector<CudaTarget> parse_cuda_targets(std::string_view list);

/// Why a card of this compute capability cannot run a build with code for `targets`, or "".
std::string trouble_with_capability(int major, int minor, const std::vector<CudaTarget>& targets);

}  // namespace mezzo
