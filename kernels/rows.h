#pragma once
#include <cstdint>

namespace mezzo {

/// Where the rows of a matrix lie: row i starts at data + i * stride elements. Kernels take it beside a
/// shape.
template <typename T>
struct Rows {
  T* data = nullptr;
  std::int64_t stride = 0;

  T* row(std::int64_t i) const { return data + i * stride; }
  operator Rows<const T>() const { return {data, stride}; }
  explicit operator bool() const { return data != nullptr; }
};

/// Packed sequences and the heads that attend within them: the shape of an attention kernel.
struct AttentionDims {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;  ///< divides heads
  std::int64_t head_dim = 0;
  float scale = 1.0f;
};

}  // namespace mezzo
