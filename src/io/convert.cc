#include "mezzo/io/convert.h"

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

constexpr std::size_t lanes = 8;  // floats in a 256-bit register

__m128i load_128(const std::byte* source) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(source));
}

template <typename T>
T load(const std::byte* source) {
  T value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

template <typename T>
void store(std::byte* out, T value) {
  std::memcpy(out, &value, sizeof value);
}

void widen_bf16(const std::byte* source, std::span<float> out) {
  std::size_t i = 0;
  for (; i + lanes <= out.size(); i += lanes) {
    const __m256i words = _mm256_cvtepu16_epi32(load_128(source + 2 * i));
    _mm256_storeu_ps(out.data() + i, _mm256_castsi256_ps(_mm256_slli_epi32(words, 16)));
  }
  for (; i < out.size(); ++i) out[i] = bf16_to_float(load<std::uint16_t>(source + 2 * i));
}

void widen_f16(const std::byte* source, std::span<float> out) {
  std::size_t i = 0;
  for (; i + lanes <= out.size(); i += lanes)
    _mm256_storeu_ps(out.data() + i, _mm256_cvtph_ps(load_128(source + 2 * i)));
  for (; i < out.size(); ++i) out[i] = f16_to_float(load<std::uint16_t>(source + 2 * i));
}

/// By the instruction: a C++ conversion of what fp32 cannot hold would be undefined.
float narrowed(double value) { return _mm_cvtss_f32(_mm_cvtsd_ss(_mm_setzero_ps(), _mm_set_sd(value))); }

void narrow_f64(const std::byte* source, std::span<float> out) {
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = narrowed(load<double>(source + 8 * i));
}

/// `value` if fp32 holds it, else the one of its two neighbours in fp32 whose last bit is 1. Rounded to a
/// type with at least two bits less, it gives what `value` itself would: it lies between two numbers of that
/// type, or in the middle, exactly where `value` does (Boldo and Melquiond 2008, "rounding to odd").
float narrowed_to_odd(double value) {
  const float nearest = narrowed(value);
  if (!std::isfinite(value) || nearest == value) return nearest;
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  if (std::abs(static_cast<double>(nearest)) > std::abs(value)) --bits;  // the neighbour towards zero
  return std::bit_cast<float>(bits | 1u);
}

void narrow_to_f16(std::span<const float> values, std::byte* out) {
  std::size_t i = 0;
  for (; i + lanes <= values.size(); i += lanes)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(values.data() + i), _MM_FROUND_TO_NEAREST_INT));
  for (; i < values.size(); ++i) store(out + 2 * i, float_to_f16(values[i]));
}

}  // namespace

bool is_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16 || dtype == DType::f64;
}

void to_float(DType dtype, const std::byte* source, std::span<float> out) {
  if (out.empty()) return;
  switch (dtype) {
    case DType::f32:
      std::memcpy(out.data(), source, out.size_bytes());
      return;
    case DType::f16:
      widen_f16(source, out);
      return;
    case DType::bf16:
      widen_bf16(source, out);
      return;
    case DType::f64:
      narrow_f64(source, out);
      return;
    default:
      throw Error("cannot convert {} to F32: F32, F16, BF16 or F64 is expected", name_of(dtype));
  }
}

void from_float(std::span<const float> values, DType dtype, std::byte* out) {
  if (values.empty()) return;
  switch (dtype) {
    case DType::f32:
      std::memcpy(out, values.data(), values.size_bytes());
      return;
    case DType::f16:
      narrow_to_f16(values, out);
      return;
    case DType::bf16:
      for (std::size_t i = 0; i < values.size(); ++i) store(out + 2 * i, float_to_bf16(values[i]));
      return;
    case DType::f64:
      for (std::size_t i = 0; i < values.size(); ++i) store(out + 8 * i, static_cast<double>(values[i]));
      return;
    default:
      throw Error("cannot convert F32 to {}: F32, F16, BF16 or F64 is expected", name_of(dtype));
  }
}

void from_double(std::span<const double> values, DType dtype, std::byte* out) {
  if (values.empty()) return;
  if (dtype == DType::f64) {
    std::memcpy(out, values.data(), values.size_bytes());
    return;
  }
  std::array<float, 1024> narrow;
  for (std::size_t done = 0; done < values.size(); done += narrow.size()) {
    const auto part = values.subspan(done, std::min(narrow.size(), values.size() - done));
    std::ranges::transform(part, narrow.begin(), dtype == DType::f32 ? narrowed : narrowed_to_odd);
    from_float(std::span(narrow).first(part.size()), dtype, out + done * size_of(dtype));
  }
}

}  // namespace mezzo
