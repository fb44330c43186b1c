#include "mezzo/backend/arena.h"

#include <algorithm>

#include "mezzo/core/error.h"

namespace mezzo {

View Arena::take(DType dtype, std::int64_t probes, std::int64_t rows, std::int64_t cols,
                 std::int64_t row_stride) {
  constexpr std::size_t alignment = 256;
  View view = dense(nullptr, dtype, rows, cols);
  view.row_stride = row_stride;
  view.probe_stride = probes == 0 ? 0 : rows * row_stride;
  const auto elements = static_cast<std::size_t>(std::max<std::int64_t>(probes, 1) * rows * row_stride);
  const std::size_t begin = used_;
  used_ += (elements * size_of(dtype) + alignment - 1) / alignment * alignment;
  high_water_ = std::max(high_water_, used_);
  if (buffer_.data() != nullptr) {
    if (used_ > buffer_.bytes()) {
      throw DeviceError("the arena of {} bytes is too small: {} bytes are needed", buffer_.bytes(), used_);
    }
    view.data = static_cast<std::byte*>(buffer_.data()) + begin;
  }
  return view;
}

}  // namespace mezzo
