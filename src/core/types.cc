#include "mezzo/core/types.h"

#include <immintrin.h>

#include "mezzo/core/error.h"

namespace mezzo {

std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::i64:
    case DType::u64:
    case DType::f64:
      return 8;
  }
  throw Error("unknown element type {}", static_cast<int>(dtype));
}

std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::f16:
      return "F16";
    case DType::bf16:
      return "BF16";
    case DType::i32:
      return "I32";
    case DType::i64:
      return "I64";
    case DType::u64:
      return "U64";
    case DType::f64:
      return "F64";
  }
  throw Error("unknown element type {}", static_cast<int>(dtype));
}

View View::columns(std::int64_t begin, std::int64_t count) const {
  View part = *this;
  part.data = static_cast<std::byte*>(data) + begin * static_cast<std::int64_t>(size_of(dtype));
  part.cols = count;
  return part;
}

View View::row_range(std::int64_t begin, std::int64_t count) const {
  View part = *this;
  part.data = static_cast<std::byte*>(data) + begin * row_stride * static_cast<std::int64_t>(size_of(dtype));
  part.rows = count;
  return part;
}

View View::probe(std::int64_t p) const {
  View one = *this;
  one.data = static_cast<std::byte*>(data) + p * probe_stride * static_cast<std::int64_t>(size_of(dtype));
  one.probe_stride = 0;
  return one;
}

View dense(void* data, DType dtype, std::int64_t rows, std::int64_t cols) {
  return View{.data = data, .dtype = dtype, .rows = rows, .cols = cols, .row_stride = cols};
}

std::uint16_t float_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return static_cast<std::uint16_t>((bits >> 16) | 0x40u);  // quiet NaN
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float f16_to_float(std::uint16_t bits) { return _cvtsh_ss(bits); }

std::uint16_t float_to_f16(float value) { return _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT); }

}  // namespace mezzo
