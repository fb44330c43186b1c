#include "kernels/reference/linear.h"

#include <vector>

namespace mezzo::reference {

void linear(Rows<const float> x, std::int64_t rows, std::int64_t in, Rows<const float> weight,
            std::int64_t out, const float* bias, Rows<float> y) {
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t o = 0; o < out; ++o) {
      double sum = bias != nullptr ? bias[o] : 0.0;
      for (std::int64_t i = 0; i < in; ++i) sum += double{weight.row(o)[i]} * x.row(t)[i];
      y.row(t)[o] = static_cast<float>(sum);
    }
  }
}

void add_tail(Rows<const float> x, std::int64_t rows, std::int64_t in, const Tail& tail, std::int64_t out,
              Rows<float> y) {
  // The factor's element plus its noise: in double, so that epsilon z is not rounded into the factor.
  const auto perturbed = [](float value, double epsilon, const float* z, std::int64_t i) {
    return epsilon == 0.0 ? double{value} : value + epsilon * z[i];
  };
  std::vector<double> s(static_cast<std::size_t>(tail.rank));
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t k = 0; k < tail.rank; ++k) {
      double sum = 0.0;
      for (std::int64_t i = 0; i < in; ++i) {
        sum += perturbed(tail.a.row(k)[i], tail.a_epsilon, tail.z_a, k * in + i) * x.row(t)[i];
      }
      s[static_cast<std::size_t>(k)] = sum;
    }
    for (std::int64_t o = 0; o < out; ++o) {
      double sum = 0.0;
      for (std::int64_t k = 0; k < tail.rank; ++k) {
        sum += perturbed(tail.b.row(o)[k], tail.epsilon, tail.z_b, o * tail.rank + k) *
               s[static_cast<std::size_t>(k)];
      }
      y.row(t)[o] = static_cast<float>(y.row(t)[o] + tail.scaling * sum);
    }
  }
}

}  // namespace mezzo::reference
