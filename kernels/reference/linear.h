#pragma once
// Matrix products and the low-rank tail of a perturbed one.
#include <cstdint>

#include "kernels/rows.h"

namespace mezzo::reference {

/// y[t] = W x[t] + bias. W [out, in]; `bias` [out] may be null.
void linear(Rows<const float> x, std::int64_t rows, std::int64_t in, Rows<const float> weight,
            std::int64_t out, const float* bias, Rows<float> y);

/// LoRA's factors and the noise of a direction over both, each of its factor's shape, dense.
struct Tail {
  Rows<const float> a;         ///< [rank, in]
  Rows<const float> b;         ///< [out, rank]
  const float* z_a = nullptr;  ///< [rank, in]; not read where epsilon = 0
  const float* z_b = nullptr;  ///< [out, rank]; not read where epsilon = 0
  std::int64_t rank = 0;
  float scaling = 1.0f;
  float a_epsilon = 0.0f;
  float epsilon = 0.0f;  ///< signed; 0 where a_epsilon is
};

/// y[t] += scaling (B s + epsilon Z_B s), s = A x[t] + a_epsilon Z_A x[t].
void add_tail(Rows<const float> x, std::int64_t rows, std::int64_t in, const Tail& tail, std::int64_t out,
              Rows<float> y);

}  // namespace mezzo::reference
