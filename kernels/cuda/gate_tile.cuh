#pragma once
// How a tile of gate and up ends as activation(gate) * up (tile_product.cuh).
#include "kernels/cuda/curve.cuh"
#include "kernels/cuda/tile_product.cuh"

namespace mezzo::cuda::tiles {

inline constexpr int gate_columns = tile_columns / 2;  // of a tile; behind them as many of up

__device__ inline float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/// 1 / (1 + e^-x), or 2^-60 where that is less, for x and y: one reciprocal serves both.
__device__ inline float2 logistic(float x, float y) {
  constexpr float log2_e = 1.44269504f;
  const float a = 1.0f + power_of_two(fminf(-log2_e * x, 60.0f));
  const float b = 1.0f + power_of_two(fminf(-log2_e * y, 60.0f));
  const float both = reciprocal(a * b);
  return {both * b, both * a};
}

template <Curve curve>
__device__ inline float2 curved(float x, float y) {
  if constexpr (curve == Curve::silu) {
    const float2 share = logistic(x, y);
    return {x * share.x, y * share.y};
  }
  if constexpr (curve == Curve::gelu_tanh) {  // (1 + tanh(u)) / 2 is the logistic function of 2 u
    const auto twice = [](float v) { return 1.5957691216f * (v + 0.044715f * v * v * v); };
    const float2 share = logistic(twice(x), twice(y));
    return {x * share.x, y * share.y};
  }
  return {apply(curve, x), apply(curve, y)};
}

/// Of 4 x 4 words in four neighbouring lanes, a row a lane, column threadIdx.x % 4.
__device__ inline uint4 transposed(const std::uint32_t (&x)[4]) {
  const bool odd = threadIdx.x % 2 != 0;
  const bool upper = threadIdx.x / 2 % 2 != 0;
  const auto exchange = [](std::uint32_t word, int lanes) {
    return __shfl_xor_sync(0xffffffffu, word, lanes);
  };
  // Of the pair's columns j and j + 1 the even lane gets j, the odd one j + 1.
  const std::uint32_t first = exchange(odd ? x[0] : x[1], 1);
  const std::uint32_t second = exchange(odd ? x[2] : x[3], 1);
  const std::uint32_t low[2] = {odd ? first : x[0], odd ? x[1] : first};
  const std::uint32_t high[2] = {odd ? second : x[2], odd ? x[3] : second};
  const std::uint32_t third = exchange(upper ? low[0] : high[0], 2);
  const std::uint32_t fourth = exchange(upper ? low[1] : high[1], 2);
  return upper ? make_uint4(third, fourth, high[0], high[1]) : make_uint4(low[0], low[1], third, fourth);
}

/// Where the tiles of a gated product go.
struct Output {
  bf16* y;
  std::int64_t stride;
  std::uint32_t cols;
  Curve curve;
};

/// The end of a tile, columns of gate and then of up. What lies behind row `rows` is not stored.
struct GateTile {
  const Output& out;
  std::uint32_t row, rows, column;

  template <Curve curve>
  __device__ void store(const float (&sum)[128]) const {
    const std::uint32_t lane_column = column + 8 * (threadIdx.x % 4);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t r = row + 8 * half;
      bf16* const to = out.y + r * out.stride + lane_column;
#pragma unroll
      for (int j = 0; j < gate_columns / 8; j += 4) {
        std::uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int gate = 4 * (j + i) + 2 * half;
          const int up = gate + 4 * (gate_columns / 8);
          const float2 y = curved<curve>(sum[gate], sum[gate + 1]);
          words[i] = pack(y.x * sum[up], y.y * sum[up + 1]);
        }
        const uint4 eight = transposed(words);
        if (r < rows && lane_column + 8 * j < out.cols) *reinterpret_cast<uint4*>(to + 8 * j) = eight;
      }
    }
  }

  __device__ void operator()(const float (&sum)[128]) const {
    switch (out.curve) {
      case Curve::none:
        return store<Curve::none>(sum);
      case Curve::silu:
        return store<Curve::silu>(sum);
      case Curve::gelu_tanh:
        return store<Curve::gelu_tanh>(sum);
      case Curve::gelu_erf:
        return store<Curve::gelu_erf>(sum);
      case Curve::relu:
        return store<Curve::relu>(sum);
    }
  }
};

}  // namespace mezzo::cuda::tiles
