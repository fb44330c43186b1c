#pragma once
#include "kernels/cuda/activation.h"

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

}  // namespace mezzo::cuda
