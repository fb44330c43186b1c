#pragma once
// Element types and the non-owning View that every operation takes.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mezzo {

/// Element types of weights, activations and trainables. The numbers are frozen: snapshots store them.
enum class DType : std::uint8_t { f32 = 0, f16 = 1, bf16 = 2, i32 = 3, i64 = 4, u64 = 5, f64 = 6 };

std::size_t size_of(DType dtype);       ///< bytes an element
std::string_view name_of(DType dtype);  ///< "F32", "BF16", ... as safetensors spells them

/// A view of a matrix, or of one matrix a probe. It owns nothing and may point to device memory.
/// Element (p, i, j) is at data + (p * probe_stride + i * row_stride + j) * size_of(dtype).
struct View {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t row_stride = 0;    ///< in elements; >= cols
  std::int64_t probe_stride = 0;  ///< in elements; 0 = one matrix shared by all probes

  bool shared() const { return probe_stride == 0; }
  explicit operator bool() const { return data != nullptr; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  /// The columns [begin, begin + count) of every row.
  View columns(std::int64_t begin, std::int64_t count) const;
  /// The rows [begin, begin + count), of each probe where there are several.
  View row_range(std::int64_t begin, std::int64_t count) const;
  /// The matrix of one probe, as a shared view.
  View probe(std::int64_t p) const;
};

/// A dense row-major view of rows x cols.
View dense(void* data, DType dtype, std::int64_t rows, std::int64_t cols);

// bf16 and f16 as their bit patterns; rounding is to nearest, ties to even.
inline float bf16_to_float(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
std::uint16_t float_to_bf16(float value);
float f16_to_float(std::uint16_t bits);
std::uint16_t float_to_f16(float value);

}  // namespace mezzo
