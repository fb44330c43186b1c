#pragma once
#include "kernels/cuda/activation.h"
#include "kernels/cuda/instructions.cuh"

namespace mezzo::cuda {

__device__ inline float apply(Curve curve, float x) {
  switch (curve) {
    case Curve::none:
      return x;
    case Curve::silu:
      return x / (1.0f + expf(-x));
    case Curve::gelu_tanh:
      return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    case Curve::gelu_erf:
      return 0.5f * x * erfcf(-0.7071067812f * x);
    case Curve::relu:
      return x < 0.0f ? 0.0f : x;
  }
  return x;
}

/// cap tanh(x / cap), by a power of two: within 2^-22 cap.
__device__ inline float soft_capped(float x, float cap) {
  const float grown = power_of_two(__fdividef(2.88539008f * x, cap));  // e^(2 x / cap)
  return cap - __fdividef(2.0f * cap, 1.0f + grown);
}

}  // namespace mezzo::cuda
