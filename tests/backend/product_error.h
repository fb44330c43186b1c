#pragma once
// A product in double, and how far an implementation's element may be from it: derived from the operands, so
// that a lost tail, a perturbation rounded into a weight or a wrong factor shows in the first element that it
// touches.
//
// A sum of n products in fp32 errs by at most n u sum |terms| (Higham 2002, Accuracy and Stability of
// Numerical Algorithms, eq. 3.5), u = 2^-24; tensor cores cut bits off where IEEE rounds, hence 4 u. With
// bf16 operands the cuda backend rounds B, Z_A, Z_B and sigma eps s by up to 2^-8 each, and A and s, as sums
// of two bf16 numbers, by 2^-16 (docs/numerics.md).
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <variant>
#include <vector>

#include "mezzo/core/noise.h"
#include "operands.h"

namespace mezzo::test {

/// bf16 has 8 bits of significand: numbers in [1, 2) are 2^-7 apart.
constexpr double bf16_unit = 0x1p-8;

/// [copies][rows][out], before any activation.
struct ExactProduct {
  std::int64_t rows = 0;
  std::int64_t out = 0;
  std::vector<double> y;
  std::vector<double> error;  ///< of y before it is rounded to the output's type

  std::size_t at(std::int64_t copy, std::int64_t t, std::int64_t j) const {
    return static_cast<std::size_t>((copy * rows + t) * out + j);
  }
};

inline ExactProduct exact_product(const RandomProduct& random, const Operand& x,
                                  const std::vector<Probe>& probes, NoiseKind noise, DType type) {
  const Product& product = random.product;
  const std::int64_t in = product.in(), rows = x.view.rows, out = product.out();
  const double rounding = type == DType::bf16 ? bf16_unit : 0.0;
  const double split = type == DType::bf16 ? 0x1p-16 : 0.0;
  const double sum_unit = 4 * 0x1p-24 * double(in + product.tail_ranks() + 4);
  ExactProduct result{.rows = rows, .out = out, .y = {}, .error = {}};
  const auto count = probes.size() * static_cast<std::size_t>(rows * out);
  result.y.resize(count);
  result.error.resize(count);
  for (std::int64_t p = 0; p < std::ssize(probes); ++p) {
    const Probe& probe = probes[std::size_t(p)];
    const double epsilon = probe.epsilon;
    for (std::int64_t t = 0; t < rows; ++t) {
      for (std::int64_t j = 0; j < out; ++j) {
        double y = product.bias ? double(random.bias.at(0, 0, j)) : 0.0, size = std::abs(y);
        for (std::int64_t i = 0; i < in; ++i) {
          const double term = double(random.weight.at(0, j, i)) * x.at(p, t, i);
          y += term;
          size += std::abs(term);
        }
        result.y[result.at(p, t, j)] = y;
        result.error[result.at(p, t, j)] = sum_unit * size;
      }
    }
    for (const ProductPart& part : product.parts) {
      const auto* const tail = std::get_if<LowRankTail>(&part.perturbation);
      if (tail == nullptr) continue;
      const std::int64_t ranks = tail->a.rows;
      const auto z = [&](NoiseTensor of, std::int64_t element) {
        return epsilon == 0.0 ? 0.0 : double(noise_at(noise, probe.seed, of, std::uint64_t(element)));
      };
      const double a_epsilon = tail->a_epsilon(probe.epsilon);
      std::vector<double> z_a, z_b;
      for (std::int64_t e = 0; e < ranks * in; ++e) z_a.push_back(z(tail->a_noise, e));
      for (std::int64_t e = 0; e < part.rows * ranks; ++e) z_b.push_back(z(tail->b_noise, e));
      for (std::int64_t t = 0; t < rows; ++t) {
        std::vector<double> s(static_cast<std::size_t>(ranks)), s_error(s.size());
        for (std::int64_t r = 0; r < ranks; ++r) {
          double sum = 0.0, from_a = 0.0, from_z = 0.0;
          for (std::int64_t i = 0; i < in; ++i) {
            const double a =
                tail->outer ? 0.0 : double(tail->a.as<float>()[r * tail->a.row_stride + i]) * x.at(p, t, i);
            const double n = a_epsilon * z_a[std::size_t(r * in + i)] * x.at(p, t, i);
            sum += a + n;
            from_a += std::abs(a);
            from_z += std::abs(n);
          }
          const double scaling = tail->scaling;
          s[std::size_t(r)] = scaling * sum;
          s_error[std::size_t(r)] = scaling * ((split + sum_unit) * from_a + (rounding + sum_unit) * from_z) +
                                    split * std::abs(s[std::size_t(r)]);
        }
        for (std::int64_t j = 0; j < part.rows; ++j) {
          double y = 0.0, error = 0.0;
          for (std::int64_t r = 0; r < ranks; ++r) {
            const double b = tail->outer ? 0.0 : double(tail->b.as<float>()[j * tail->b.row_stride + r]);
            const double n = epsilon * z_b[std::size_t(j * ranks + r)];
            const double sr = s[std::size_t(r)], dr = s_error[std::size_t(r)];
            y += (b + n) * sr;
            error += (rounding + sum_unit) * std::abs(b * sr) + (2 * rounding + sum_unit) * std::abs(n * sr) +
                     (std::abs(b) + std::abs(n)) * dr;
          }
          result.y[result.at(p, t, part.row_begin + j)] += y;
          result.error[result.at(p, t, part.row_begin + j)] += error;
        }
      }
    }
  }
  return result;
}

/// |actual - exact| within the bound of each element, `type` being the output's; column j of `actual` is
/// column `first_column` + j of the product. Reports the element that exceeds its bound most.
inline void expect_product(const Operand& actual, const ExactProduct& exact, std::int64_t probes,
                           std::int64_t first_column, DType type) {
  double worst = -1.0;
  std::string where;
  for (std::int64_t p = 0; p < (actual.view.shared() ? 1 : probes); ++p) {
    for (std::int64_t t = 0; t < actual.view.rows; ++t) {
      for (std::int64_t j = 0; j < actual.view.cols; ++j) {
        const std::size_t e = exact.at(p, t, first_column + j);
        const double bound =
            1.01 * (exact.error[e] + (type == DType::bf16 ? bf16_unit : 0x1p-24) * std::abs(exact.y[e]));
        const double ratio = std::abs(double(actual.at(p, t, j)) - exact.y[e]) / bound;
        if (ratio <= worst) continue;  // false for NaN
        worst = std::isnan(ratio) ? INFINITY : ratio;
        where = fmt::format("probe {}, row {}, column {}: {} instead of {}, bound {:.2g}", p, t, j,
                            actual.at(p, t, j), exact.y[e], bound);
      }
    }
  }
  EXPECT_LE(worst, 1.0) << where;
  EXPECT_TRUE(actual.untouched_around());
}

inline double activated(Activation activation, double x) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::silu:
      return x / (1.0 + std::exp(-x));
    case Activation::gelu_tanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::gelu_erf:
      return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
    case Activation::relu:
      return std::max(x, 0.0);
  }
  return x;
}

/// The same of a product with an epilogue. An activation's slope is at most 1.13 and its value is formed in
/// fp32; gate and up may each be rounded to `type` before they meet (docs/decisions/gate-times-up.md).
inline void expect_activated(const Operand& actual, const ExactProduct& exact, std::int64_t probes,
                             const Epilogue& epilogue, DType type) {
  const double rounding = type == DType::bf16 ? bf16_unit : 0x1p-24;
  double worst = -1.0;
  std::string where;
  for (std::int64_t p = 0; p < (actual.view.shared() ? 1 : probes); ++p) {
    for (std::int64_t t = 0; t < actual.view.rows; ++t) {
      for (std::int64_t j = 0; j < actual.view.cols; ++j) {
        const auto before = [&](std::int64_t column) {
          const std::size_t e = exact.at(p, t, column);
          return std::pair{exact.y[e], exact.error[e] + rounding * std::abs(exact.y[e])};
        };
        const auto [x, dx] = before(j);
        const double a = activated(epilogue.activation, x);
        const double da = 1.13 * dx + 0x1p-20 * std::abs(x);
        double value = a, error = da;
        if (epilogue.gated) {
          const auto [up, dup] = before(actual.view.cols + j);
          value = a * up;
          error = std::abs(up) * da + std::abs(a) * dup + da * dup;
        }
        const double bound = 1.01 * (error + rounding * std::abs(value)) + 1e-30;
        const double ratio = std::abs(double(actual.at(p, t, j)) - value) / bound;
        if (ratio <= worst) continue;  // false for NaN
        worst = std::isnan(ratio) ? INFINITY : ratio;
        where = fmt::format("probe {}, row {}, column {}: {} instead of {}, bound {:.2g}", p, t, j,
                            actual.at(p, t, j), value, bound);
      }
    }
  }
  EXPECT_LE(worst, 1.0) << where;
  EXPECT_TRUE(actual.untouched_around());
}

}  // namespace mezzo::test
