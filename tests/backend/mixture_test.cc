// Mixtures of experts: routing by hand, then every operation of the cpu backend against the reference, and
// the reference against products of single rows. Tolerances as in operations_test.cc.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "operands.h"

namespace mezzo::test {
namespace {

using Integers = std::vector<std::int32_t>;
constexpr double u = 0x1p-24;
constexpr RoutingRule two_of_five{.experts = 5, .chosen = 2};

/// Experts [out of all parts, in]; odd ones have tails, of different parts.
struct Experts {
  Experts(std::int64_t count, std::int64_t in, const std::vector<std::int64_t>& part_rows, bool with_bias) {
    for (std::int64_t e = 0; e < count; ++e) {
      std::vector<std::int64_t> ranks(part_rows.size(), 0);
      if (e % 2 == 1) ranks[static_cast<std::size_t>(e / 2) % ranks.size()] = 3;
      storage.push_back(std::make_unique<RandomProduct>(in, part_rows, ranks, with_bias,
                                                        100 * static_cast<std::uint32_t>(e + 1)));
      products.push_back(&storage.back()->product);
    }
  }
  std::vector<std::unique_ptr<RandomProduct>> storage;
  std::vector<const Product*> products;
};

class Mixture : public ::testing::Test {
 protected:
  std::unique_ptr<Backend> reference = make_backend({.device = DeviceKind::reference});
  std::unique_ptr<Backend> cpu = make_backend({.device = DeviceKind::cpu, .threads = 2});

  void prepare(std::int64_t rows, std::int64_t probes, const std::vector<const Product*>& experts) {
    Workload workload{.largest = {.tokens = rows, .sequences = 1, .loss_rows = 1, .targets = 1, .longest = 1},
                      .probes = probes,
                      .products = {},
                      .attention = {}};
    for (const Product* expert : experts) workload.products.emplace_back(expert);
    cpu->prepare(workload);
  }
  ProbeTable table(std::int64_t probes) {
    ProbeTable result;
    cpu->upload(some_probes(probes), NoiseKind::gaussian, result);
    return result;
  }
};

TEST_F(Mixture, RowsGoToTheExpertsOfTheirLargestLogits) {
  // Row 0: experts 1 and 3. Row 1: all alike, so the lowest two. Row 2: expert 4, and of 0, 2, 3 the lowest.
  std::vector<float> logits = {0, 2, 1, 3, -1, 7, 7, 7, 7, 7, 1, 0, 1, 1, 2};
  for (Backend* backend : {reference.get(), cpu.get()}) {
    for (const bool renormalised : {true, false}) {
      RoutingStorage to({.experts = 5, .chosen = 2, .renormalised = renormalised}, 0, 3);
      backend->route(table(1), dense(logits.data(), DType::f32, 3, 5), to.routing);
      EXPECT_EQ(to.begins(), (Integers{0, 2, 4, 4, 5, 6}));
      EXPECT_EQ(to.rows(), (Integers{1, 2, 0, 1, 0, 2}));
      EXPECT_EQ(to.places(), (Integers{2, 4, 0, 3, 1, 5}));
      const double e = std::exp(1.0);
      const double row0 =
          renormalised ? 1 + 1 / e : 1 + 1 / e + std::exp(-2.0) + std::exp(-3.0) + std::exp(-4.0);
      const double row2 = renormalised ? 1 + 1 / e : 1 + 3 / e + std::exp(-2.0);
      const double want[] = {1 / e / row0, 1 / row0, renormalised ? 0.5 : 0.2, renormalised ? 0.5 : 0.2,
                             1 / e / row2, 1 / row2};
      for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(to.weights[i], want[i], 4 * u) << i;
    }
  }
}

TEST_F(Mixture, NotANumberStillGivesEveryRowItsPlaces) {
  const float nan = std::nanf("");
  std::vector<float> logits = {nan, nan, nan, nan, nan, nan, 1, nan, 2, nan};
  for (Backend* backend : {reference.get(), cpu.get()}) {
    RoutingStorage to(two_of_five, 0, 2);
    backend->route(table(1), dense(logits.data(), DType::f32, 2, 5), to.routing);
    EXPECT_EQ(to.rows(), (Integers{0, 0, 1, 1})) << backend->name();
    EXPECT_EQ(to.begins(), (Integers{0, 1, 3, 3, 4, 4})) << backend->name();
  }
}

TEST_F(Mixture, RouteIsThatOfTheReference) {
  for (const std::int64_t rows : {1, 31, 33, 257}) {
    for (const RoutingRule rule : {RoutingRule{1, 1, true}, RoutingRule{8, 2, true},
                                   RoutingRule{37, 9, false}, RoutingRule{5, 5, true}}) {
      for (const std::int64_t probes : {0, 3}) {
        const Operand logits(probes, rows, rule.experts, 7);
        RoutingStorage got(rule, probes, rows), want(rule, probes, rows);
        cpu->route(table(3), logits.view, got.routing);
        reference->route(table(3), logits.view, want.routing);
        EXPECT_EQ(got.integers, want.integers);
        for (std::size_t i = 0; i < want.weights.size(); ++i)
          EXPECT_NEAR(got.weights[i], want.weights[i], 8 * u);
      }
    }
  }
}

/// One row of one probe through one product by itself.
std::vector<float> alone(Backend& backend, const Probe& probe, const Product& product, const View& x,
                         Epilogue epilogue) {
  ProbeTable table;
  backend.upload({&probe, 1}, NoiseKind::gaussian, table);
  std::vector<float> y(static_cast<std::size_t>(epilogue.gated ? product.out() / 2 : product.out()));
  View out = dense(y.data(), DType::f32, 1, std::ssize(y));
  out.probe_stride = std::ssize(y);
  backend.product(table, product, 0, x, {{out}}, epilogue);
  return y;
}

TEST_F(Mixture, ExpertsTakeTheirPlacesRows) {
  constexpr std::int64_t probes = 3, in = 33;
  const Epilogue gate{.activation = Activation::silu, .gated = true};
  for (const std::int64_t rows : {1, 31, 33, 257}) {
    for (const Epilogue epilogue : {gate, Epilogue{}}) {
      for (const bool own : {true, false}) {
        const Experts experts(5, in, {17, 17}, !own);
        prepare(rows, probes, experts.products);
        const std::int64_t copies = own ? probes : 0;
        const Operand logits(copies, rows, 5, 3), x(copies, rows, in, 4);
        RoutingStorage to(two_of_five, copies, rows);
        cpu->route(table(probes), logits.view, to.routing);
        Operand sent(copies, 2 * rows, in, 0), expected_sent(copies, 2 * rows, in, 0);
        cpu->dispatch(table(probes), to.routing, x.view, sent.view);
        reference->dispatch(table(probes), to.routing, x.view, expected_sent.view);
        expect_near(sent, expected_sent, probes, 0.0);

        const std::int64_t out = epilogue.gated ? 17 : 34;
        Operand got(probes, 2 * rows, out, 0), want(probes, 2 * rows, out, 0);
        cpu->expert_product(table(probes), experts.products, to.routing, sent.view, got.view, epilogue);
        reference->expert_product(table(probes), experts.products, to.routing, sent.view, want.view,
                                  epilogue);
        expect_near(got, want, probes, 1200 * u);  // values up to 60, of factors rounded in fp32

        // The oracle of the oracle: each place's row through its expert alone.
        for (std::int64_t p = 0; p < probes; ++p) {
          const std::size_t first = own ? static_cast<std::size_t>(p * 6) : 0;
          for (std::size_t e = 0; e < 5; ++e) {
            for (std::int32_t i = to.begins()[first + e]; i < to.begins()[first + e + 1]; i += 7) {
              const std::vector<float> row =
                  alone(*reference, some_probes(probes)[static_cast<std::size_t>(p)], *experts.products[e],
                        sent.view.probe(own ? p : 0).row_range(i, 1), epilogue);
              for (std::int64_t j = 0; j < out; ++j)
                ASSERT_EQ(want.at(p, i, j), row[static_cast<std::size_t>(j)]);
            }
          }
        }

        Operand sum(probes, rows, out, 0), expected_sum(probes, rows, out, 0);
        cpu->combine(table(probes), to.routing, want.view, sum.view);
        reference->combine(table(probes), to.routing, want.view, expected_sum.view);
        expect_near(sum, expected_sum, probes, 256 * u);  // of values up to 60
        const float* const weight = to.weights.data();
        const double by_hand = double{weight[0]} * want.at(0, to.places()[0], 1) +
                               double{weight[1]} * want.at(0, to.places()[1], 1);
        EXPECT_EQ(expected_sum.at(0, 0, 1), static_cast<float>(by_hand));
      }
    }
  }
}

/// What a probe gets of an expert has the bits that the same rows have in an ordinary product by themselves.
TEST_F(Mixture, AnExpertsRowsHaveTheBitsOfAProductOverThemAlone) {
  constexpr std::int64_t probes = 2, in = 64;
  for (const std::int64_t rows : {1, 33, 700}) {
    const Experts experts(5, in, {40, 40}, false);
    prepare(rows, probes, experts.products);
    const Operand logits(probes, rows, 5, 3), sent(probes, 2 * rows, in, 4);
    RoutingStorage to(two_of_five, probes, rows);
    cpu->route(table(probes), logits.view, to.routing);
    Operand got(probes, 2 * rows, 40, 0);
    const Epilogue gate{.activation = Activation::gelu_tanh, .gated = true};
    cpu->expert_product(table(probes), experts.products, to.routing, sent.view, got.view, gate);
    for (std::int64_t p = 0; p < probes; ++p) {
      ProbeTable one;
      cpu->upload({&some_probes(probes)[static_cast<std::size_t>(p)], 1}, NoiseKind::gaussian, one);
      for (std::size_t e = 0; e < 5; ++e) {
        const std::int32_t* const begin = to.begins().data() + static_cast<std::size_t>(p) * 6 + e;
        const std::int64_t count = begin[1] - begin[0];
        if (count == 0) continue;
        Operand want(1, count, 40, 0);
        cpu->product(one, *experts.products[e], 0, sent.view.probe(p).row_range(begin[0], count),
                     {{want.view}}, gate);
        EXPECT_TRUE(same_bits(got.view.probe(p).row_range(begin[0], count), 0, want.view, 0))
            << "expert " << e << " of probe " << p << ", " << count << " rows";
      }
    }
  }
}

TEST_F(Mixture, WhatDoesNotFitIsRefused) {
  const Experts experts(5, 33, {17, 17}, false);
  prepare(31, 2, experts.products);
  const Operand logits(2, 31, 5, 3), x(2, 31, 33, 4), few(2, 31, 4, 3);
  for (Backend* backend : {reference.get(), cpu.get()}) {
    RoutingStorage to(two_of_five, 2, 31), shared(two_of_five, 0, 31);
    backend->route(table(2), logits.view, to.routing);
    EXPECT_THROW(backend->route(table(2), few.view, to.routing), DeviceError);
    EXPECT_THROW(backend->route(table(2), logits.view, shared.routing), DeviceError);
    Operand sent(2, 62, 33, 0), of_all(0, 62, 33, 0), y(2, 62, 34, 0), y_of_all(0, 62, 34, 0);
    EXPECT_THROW(backend->dispatch(table(2), to.routing, x.view, of_all.view), DeviceError);
    backend->dispatch(table(2), to.routing, x.view, sent.view);
    const std::span<const Product* const> all = experts.products;
    EXPECT_THROW(backend->expert_product(table(2), all.first(4), to.routing, sent.view, y.view, {}),
                 DeviceError);
    EXPECT_THROW(backend->expert_product(table(2), all, to.routing, sent.view, y_of_all.view, {}),
                 DeviceError);
    backend->expert_product(table(2), all, to.routing, sent.view, y.view, {});
    to.integers[2][5] = 61;
    EXPECT_THROW(backend->expert_product(table(2), all, to.routing, sent.view, y.view, {}), DeviceError);
    to.integers[0][3] = 62;
    Operand out(2, 31, 34, 0);
    EXPECT_THROW(backend->combine(table(2), to.routing, y.view, out.view), DeviceError);
    to.integers[1][3] = 31;
    EXPECT_THROW(backend->dispatch(table(2), to.routing, x.view, sent.view), DeviceError);
    RoutingRule none = two_of_five;
    none.chosen = 6;
    RoutingStorage wrong(none, 2, 31);
    EXPECT_THROW(backend->route(table(2), logits.view, wrong.routing), DeviceError);
  }
}

}  // namespace
}  // namespace mezzo::test
