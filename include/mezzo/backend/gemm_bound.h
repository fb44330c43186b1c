#pragma once
// The GEMM bound of a step: what its base products alone take.
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "mezzo/backend/devices.h"

namespace mezzo {

/// y [rows, out] = x [rows, in] W^T.
struct PlainProduct {
  std::int64_t rows = 0;
  std::int64_t out = 0;
  std::int64_t in = 0;

  double operations() const {
    return 2.0 * static_cast<double>(rows) * static_cast<double>(out) * static_cast<double>(in);
  }
};

/// Each product as one plain product of random data by the fastest way that the device's library knows,
/// nothing shared between products and nothing done to their results.
class GemmBound {
 public:
  virtual ~GemmBound() = default;
  virtual void run() = 0;  ///< all products once; waits
  /// How many of the library's algorithms were timed, for the product where they were fewest; none where it
  /// does not let choose.
  virtual std::optional<int> fewest_candidates() const { return {}; }
};

/// On the device and in the element type of such a backend; its memory is its own. DeviceError as from
/// make_backend.
std::unique_ptr<GemmBound> make_gemm_bound(const BackendOptions& options,
                                           std::span<const PlainProduct> products);

}  // namespace mezzo
