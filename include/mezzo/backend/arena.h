#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

#include "mezzo/backend/buffer.h"
#include "mezzo/core/types.h"

namespace mezzo {

/// Bump allocator over one buffer of a backend. Without a buffer it only measures: views then have no data.
class Arena {
 public:
  Arena() = default;
  explicit Arena(Buffer buffer) : buffer_(std::move(buffer)) {}

  /// rows x cols for each of `probes` (0: shared), rows `row_stride` elements apart (>= cols).
  View take(DType dtype, std::int64_t probes, std::int64_t rows, std::int64_t cols, std::int64_t row_stride);
  std::size_t mark() const { return used_; }
  void release_to(std::size_t mark) { used_ = mark; }
  std::size_t used() const { return used_; }
  std::size_t high_water() const { return high_water_; }
  std::size_t capacity() const { return buffer_.bytes(); }

 private:
  Buffer buffer_;
  std::size_t used_ = 0;
  std::size_t high_water_ = 0;
};

}  // namespace mezzo
