#pragma once
// Eight floats at a time (AVX2, FMA: the x86-64-v3 baseline). Everything is spelled out, so that the order of
// additions, and with it the bits, depends on the length of a row alone: not on where it lies in memory, nor
// on what a compiler makes of a loop.
#include <immintrin.h>

#include <cstdint>

namespace mezzo::cpu::simd {

using Float8 = __m256;
inline constexpr std::int64_t width = 8;

inline Float8 broadcast(float x) { return _mm256_set1_ps(x); }
inline Float8 load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Float8 x) { _mm256_storeu_ps(p, x); }
inline Float8 fma(Float8 a, Float8 b, Float8 c) { return _mm256_fmadd_ps(a, b, c); }

/// Lanes 0..count-1 set, for the last, partial eight of a row; 0 <= count <= 8.
inline __m256i mask_of(std::int64_t count) {
  alignas(32) static constexpr std::int32_t table[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table + 8 - count));
}
inline Float8 load(const float* p, __m256i mask) {
  return _mm256_maskload_ps(p, mask);
}  ///< 0 in other lanes
inline void store(float* p, __m256i mask, Float8 x) { _mm256_maskstore_ps(p, mask, x); }

/// Sum of the lanes, always in the same tree.
inline float sum(Float8 x) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
inline float max(Float8 x) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

/// f(pointers' offset, mask) over [0, count): whole eights with a full mask, then the rest with a partial
/// one.
template <typename Whole, typename Partial>
inline void for_each(std::int64_t count, Whole whole, Partial partial) {
  std::int64_t j = 0;
  for (; j + width <= count; j += width) whole(j);
  if (j < count) partial(j, mask_of(count - j));
}

/// e^x within 1.0 ulp (tests/kernels/simd_test.cc goes through all floats); overflows to infinity, underflows
/// gradually to 0, NaN stays NaN.
inline Float8 exp(Float8 x) {
  // Beyond these bounds the result is infinite or 0 anyway. NaN comes through: max and min return their
  // second operand when one is NaN.
  x = _mm256_min_ps(broadcast(90.0f), _mm256_max_ps(broadcast(-105.0f), x));
  // x = n log 2 + r, |r| <= log(2) / 2; log 2 in two parts, n times the first is exact.
  const Float8 n = _mm256_round_ps(_mm256_mul_ps(x, broadcast(0x1.715476p+0f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  Float8 r = fma(n, broadcast(-0x1.62e4p-1f), x);
  r = fma(n, broadcast(-0x1.7f7d1cp-20f), r);
  // e^r = 1 + r + r^2 p(r)
  Float8 p = broadcast(0x1.6a23d0p-10f);
  p = fma(p, r, broadcast(0x1.123a20p-7f));
  p = fma(p, r, broadcast(0x1.5558f2p-5f));
  p = fma(p, r, broadcast(0x1.555492p-3f));
  p = fma(p, r, broadcast(0x1.fffffcp-2f));
  p = fma(p, _mm256_mul_ps(r, r), r);
  p = _mm256_add_ps(p, broadcast(1.0f));
  // 2^n in two factors: n reaches 130 and -152, beyond one float's exponents.
  const __m256i exponent = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(exponent, 1);
  const auto power = [](__m256i e) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
  };
  return _mm256_mul_ps(_mm256_mul_ps(p, power(half)), power(_mm256_sub_epi32(exponent, half)));
}

}  // namespace mezzo::cpu::simd
