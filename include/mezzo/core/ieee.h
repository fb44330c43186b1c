#pragma once
// The IEEE 754 binary32 operations that results promised bit for bit are made of: each rounded once, to
// nearest even, subnormals kept, on the host (plain operators and the fused multiply-add) and on the device
// (intrinsics, which no compiler flag contracts). A host compiler must not contract either: code built on
// these never adds a product that came out of mul(), so it is safe even without -ffp-contract=off.
#include <cstdint>

#ifdef __CUDACC__
#define MEZZO_HOST_DEVICE __host__ __device__
#else
#define MEZZO_HOST_DEVICE
#endif

namespace mezzo::ieee {

MEZZO_HOST_DEVICE inline float from_bits(std::uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  return __builtin_bit_cast(float, bits);
#endif
}

MEZZO_HOST_DEVICE inline std::uint32_t to_bits(float value) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(value);
#else
  return __builtin_bit_cast(std::uint32_t, value);
#endif
}

/// Nearest float of a signed integer.
MEZZO_HOST_DEVICE inline float from_int(std::int32_t value) {
#ifdef __CUDA_ARCH__
  return __int2float_rn(value);
#else
  return static_cast<float>(value);
#endif
}

MEZZO_HOST_DEVICE inline float add(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

MEZZO_HOST_DEVICE inline float mul(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

/// a * b + c, rounded once.
MEZZO_HOST_DEVICE inline float fma(float a, float b, float c) {
#ifdef __CUDA_ARCH__
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

MEZZO_HOST_DEVICE inline float sqrt(float a) {
#ifdef __CUDA_ARCH__
  return __fsqrt_rn(a);
#else
  return __builtin_sqrtf(a);
#endif
}

MEZZO_HOST_DEVICE inline float div(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}

}  // namespace mezzo::ieee
