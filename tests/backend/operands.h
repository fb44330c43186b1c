#pragma once
// Operands for tests of backends in host memory: matrices of random values with room around every row, filled
// with NaN so that reading or writing there shows.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "mezzo/backend/devices.h"
#include "mezzo/core/error.h"

namespace mezzo::test {

/// A view [rows, cols] for each of `probes` (0: shared), rows and probes further apart than they need to be.
class Operand {
 public:
  Operand() = default;
  /// Values uniform in [-1, 1]; `seed` 0: NaN, for an output.
  Operand(std::int64_t probes, std::int64_t rows, std::int64_t cols, std::uint32_t seed, std::int64_t pad = 3,
          std::int64_t shift = 0)
      : values_(
            static_cast<std::size_t>(std::max<std::int64_t>(probes, 1) * (rows * (cols + pad) + 5) + shift),
            std::numeric_limits<float>::quiet_NaN()) {
    view = dense(values_.data() + shift, DType::f32, rows, cols);
    view.row_stride = cols + pad;
    view.probe_stride = probes == 0 ? 0 : rows * view.row_stride + 5;
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    for (std::int64_t p = 0; seed != 0 && p < std::max<std::int64_t>(probes, 1); ++p) {
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < cols; ++j) at(p, i, j) = uniform(random);
      }
    }
  }
  Operand(Operand&&) = default;
  Operand& operator=(Operand&&) = default;

  float& at(std::int64_t p, std::int64_t i, std::int64_t j) {
    return view.as<float>()[p * view.probe_stride + i * view.row_stride + j];
  }
  float at(std::int64_t p, std::int64_t i, std::int64_t j) const {
    return view.as<float>()[p * view.probe_stride + i * view.row_stride + j];
  }
  /// Whatever lies between the rows is still NaN.
  bool untouched_around() const {
    std::vector<bool> inside(values_.size(), false);
    const std::int64_t start = view.as<float>() - values_.data();
    const std::int64_t probes =
        view.shared() ? 1 : (static_cast<std::int64_t>(values_.size()) - start) / view.probe_stride;
    for (std::int64_t p = 0; p < probes; ++p) {
      for (std::int64_t i = 0; i < view.rows; ++i) {
        for (std::int64_t j = 0; j < view.cols; ++j) {
          inside[static_cast<std::size_t>(start + p * view.probe_stride + i * view.row_stride + j)] = true;
        }
      }
    }
    for (std::size_t i = 0; i < values_.size(); ++i) {
      if (!inside[i] && !std::isnan(values_[i])) return false;
    }
    return true;
  }

  View view;

 private:
  std::vector<float> values_;
};

/// |actual - expected| <= tolerance everywhere; reports the worst element.
inline void expect_near(const Operand& actual, const Operand& expected, std::int64_t probes,
                        double tolerance) {
  const std::int64_t copies = actual.view.shared() ? 1 : probes;
  double worst = -1.0;
  std::string where;
  for (std::int64_t p = 0; p < copies; ++p) {
    for (std::int64_t i = 0; i < actual.view.rows; ++i) {
      for (std::int64_t j = 0; j < actual.view.cols; ++j) {
        const double a = actual.at(p, i, j);
        const double e = expected.at(p, i, j);
        const double error = std::isnan(a) || std::isnan(e) ? INFINITY : std::abs(a - e);
        if (error > worst) {
          worst = error;
          where = fmt::format("probe {}, row {}, column {}: {} instead of {}", p, i, j, a, e);
        }
      }
    }
  }
  EXPECT_LE(worst, tolerance) << where;
  EXPECT_TRUE(actual.untouched_around());
}

/// The same bits for probe p of `a` and probe q of `b`.
inline bool same_bits(const View& a, std::int64_t p, const View& b, std::int64_t q) {
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t j = 0; j < a.cols; ++j) {
      const float x = a.as<float>()[p * a.probe_stride + i * a.row_stride + j];
      const float y = b.as<float>()[q * b.probe_stride + i * b.row_stride + j];
      if (std::bit_cast<std::uint32_t>(x) != std::bit_cast<std::uint32_t>(y)) return false;
    }
  }
  return true;
}

/// A product over its own random storage, in `part_rows`; a rank of 0 leaves a part unperturbed. `outer`: the
/// weight's own noise in place of LoRA.
struct RandomProduct {
  RandomProduct(std::int64_t in, const std::vector<std::int64_t>& part_rows,
                const std::vector<std::int64_t>& ranks, bool with_bias, std::uint32_t seed,
                bool outer = false)
      : weight(0, total(part_rows), in, seed), bias(0, 1, total(part_rows), seed + 1) {
    product.name = "product";
    product.weight.codes = weight.view;
    if (with_bias) product.bias = bias.view;
    std::int64_t row = 0;
    for (std::size_t i = 0; i < part_rows.size(); ++i) {
      ProductPart part{.name = fmt::format("part {}", i), .row_begin = row, .rows = part_rows[i]};
      if (ranks[i] > 0) {
        const auto id = static_cast<std::uint32_t>(2 * i);
        if (outer) {
          part.perturbation = LowRankTail{.a = dense(nullptr, DType::f32, ranks[i], in),
                                          .b = dense(nullptr, DType::f32, part_rows[i], ranks[i]),
                                          .a_noise = outer_columns(id),
                                          .b_noise = outer_rows(id),
                                          .scaling = outer_scale(ranks[i]),
                                          .outer = true};
        } else {
          factors.emplace_back(0, ranks[i], in, seed + 10 + id, 0);
          factors.emplace_back(0, part_rows[i], ranks[i], seed + 11 + id, 0);
          part.perturbation = LowRankTail{.a = factors[factors.size() - 2].view,
                                          .b = factors.back().view,
                                          .a_noise = id,
                                          .b_noise = id + 1,
                                          .scaling = 2.0f};
        }
      }
      product.parts.push_back(part);
      row += part_rows[i];
    }
  }

  static std::int64_t total(const std::vector<std::int64_t>& rows) {
    std::int64_t sum = 0;
    for (const std::int64_t r : rows) sum += r;
    return sum;
  }

  Operand weight, bias;
  std::vector<Operand> factors;
  Product product;
};

/// A routing of `rows` rows over its own storage, for each of `probes` (0: shared).
struct RoutingStorage {
  RoutingStorage(RoutingRule rule, std::int64_t probes, std::int64_t rows) {
    const auto copies = static_cast<std::size_t>(std::max<std::int64_t>(probes, 1));
    const auto integers_of = [&](std::int64_t of_rows, std::int64_t cols) {
      integers.emplace_back(copies * static_cast<std::size_t>(of_rows * cols), -1);
      View view = dense(integers.back().data(), DType::i32, of_rows, cols);
      view.probe_stride = probes == 0 ? 0 : of_rows * cols;
      return view;
    };
    weights.resize(copies * static_cast<std::size_t>(rows * rule.chosen),
                   std::numeric_limits<float>::quiet_NaN());
    routing.rule = rule;
    routing.weights = dense(weights.data(), DType::f32, rows, rule.chosen);
    routing.weights.probe_stride = probes == 0 ? 0 : rows * rule.chosen;
    routing.places = integers_of(rows, rule.chosen);
    routing.rows = integers_of(1, rows * rule.chosen);
    routing.begins = integers_of(1, rule.experts + 1);
  }
  RoutingStorage(const RoutingStorage&) = delete;
  RoutingStorage& operator=(const RoutingStorage&) = delete;

  const std::vector<std::int32_t>& places() const { return integers[0]; }
  const std::vector<std::int32_t>& rows() const { return integers[1]; }
  const std::vector<std::int32_t>& begins() const { return integers[2]; }

  std::vector<float> weights;
  std::vector<std::vector<std::int32_t>> integers;
  Routing routing;
};

/// Two probes a direction, +-epsilon, and every third probe unperturbed.
inline std::vector<Probe> some_probes(std::int64_t count, float epsilon = 1e-2f) {
  std::vector<Probe> probes;
  for (std::int64_t p = 0; p < count; ++p) {
    const auto direction = static_cast<std::uint32_t>(p / 2);
    const float sign = p % 3 == 2 ? 0.0f : (p % 2 == 0 ? 1.0f : -1.0f);
    probes.push_back(
        {.seed = 0x9e3779b97f4a7c15u * (direction + 1), .direction = direction, .epsilon = sign * epsilon});
  }
  return probes;
}

/// Sequences of the given lengths; every token is read and asked for, twice where its index is divisible
/// by 3.
inline PackedBatch packed(const std::vector<std::int32_t>& lengths, std::int32_t vocabulary) {
  PackedBatch batch;
  batch.offsets.push_back(0);
  for (const std::int32_t length : lengths) {
    for (std::int32_t i = 0; i < length; ++i) {
      const auto t = static_cast<std::int32_t>(batch.tokens.size());
      batch.tokens.push_back((t * 7 + 3) % vocabulary);
      batch.positions.push_back(i);
      batch.loss_rows.push_back(t);
      for (int q = 0; q < (t % 3 == 0 ? 2 : 1); ++q) {
        batch.target_rows.push_back(t);
        batch.target_tokens.push_back((t * 5 + q) % vocabulary);
      }
    }
    batch.offsets.push_back(static_cast<std::int32_t>(batch.tokens.size()));
  }
  return batch;
}

/// The same sequences with other tokens and target tokens for each of `probes` probes.
inline PackedBatch with_own_tokens(const PackedBatch& shared, std::int64_t probes, std::int32_t vocabulary) {
  PackedBatch batch = shared;
  batch.probes = probes;
  batch.tokens.clear();
  batch.target_tokens.clear();
  for (std::int64_t p = 0; p < probes; ++p) {
    const auto other = [&](std::int32_t token) { return (token + 11 * std::int32_t(p)) % vocabulary; };
    for (const std::int32_t token : shared.tokens) batch.tokens.push_back(other(token));
    for (const std::int32_t token : shared.target_tokens) batch.target_tokens.push_back(other(token));
  }
  return batch;
}

/// What probe p of such a batch sees, as a batch that all probes share.
inline PackedBatch batch_of_probe(const PackedBatch& batch, std::int64_t p) {
  PackedBatch one = batch;
  one.probes = 0;
  const auto cut = [&](const std::vector<std::int32_t>& all, std::vector<std::int32_t>& part) {
    const std::int64_t count = std::ssize(all) / batch.probes;
    part.assign(all.begin() + p * count, all.begin() + (p + 1) * count);
  };
  cut(batch.tokens, one.tokens);
  cut(batch.target_tokens, one.target_tokens);
  return one;
}

}  // namespace mezzo::test
