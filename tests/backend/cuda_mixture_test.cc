// Mixtures of experts on a card against the reference, from the router's logits to the sum of the experts.
#include <cmath>

#include "cuda_operands.h"
#include "kernels/cuda/mixture_limits.h"

namespace mezzo::test {
namespace {

/// Experts of one product each on the host and on the device, where they lie equally far apart.
struct Experts {
  /// `tails`: every other expert has them, of different parts and both kinds.
  Experts(Backend& backend, DType dtype, std::int64_t count, std::int64_t in,
          const std::vector<std::int64_t>& part_rows, bool tails, std::uint32_t seed) {
    for (std::int64_t e = 0; e < count; ++e) {
      std::vector<std::int64_t> ranks(part_rows.size(), 0);
      if (tails && e % 2 == 1) ranks[static_cast<std::size_t>(e / 2) % ranks.size()] = e % 4 == 1 ? 3 : 11;
      host.push_back(std::make_unique<RandomProduct>(
          in, part_rows, ranks, false, seed + 100 * static_cast<std::uint32_t>(e + 1), e % 4 == 3));
      device.push_back(std::make_unique<DeviceProduct>(backend, *host.back(), dtype, false));
      host_products.push_back(&host.back()->product);
    }
    const Weight like = backend.place_weight(host_products[0]->out(), in, 0);
    const std::size_t apart = (like.bytes() + 511) / 256 * 256;
    weights = backend.allocate(static_cast<std::size_t>(count) * apart);
    for (std::size_t e = 0; e < device.size(); ++e) {
      Product& product = device[e]->product;
      product.weight = like;
      product.weight.codes.data = static_cast<std::byte*>(weights.data()) + e * apart;
      std::vector<float> values;
      for (std::int64_t i = 0; i < product.out(); ++i) {
        for (std::int64_t j = 0; j < in; ++j) values.push_back(host[e]->weight.at(0, i, j));
      }
      backend.load(product.weight.codes, DType::f32, values.data(), false);
      device_products.push_back(&product);
    }
  }
  std::vector<PlannedProduct> planned(const RoutingRule& rule, Epilogue epilogue) const {
    std::vector<PlannedProduct> result;
    for (const Product* product : device_products) result.emplace_back(product, epilogue, rule);
    return result;
  }

  std::vector<std::unique_ptr<RandomProduct>> host;
  std::vector<std::unique_ptr<DeviceProduct>> device;
  std::vector<const Product*> host_products, device_products;
  Buffer weights;
};

/// A routing in device memory, with room after it that must stay as it is.
struct DeviceRouting {
  DeviceRouting(Backend& backend, RoutingRule rule, std::int64_t probes, std::int64_t rows) {
    const std::int64_t copies = std::max<std::int64_t>(probes, 1);
    const auto take = [&](DType dtype, std::int64_t of_rows, std::int64_t cols) {
      storage.push_back(backend.allocate(static_cast<std::size_t>(copies * of_rows * cols) * 4));
      View view = dense(storage.back().data(), dtype, of_rows, cols);
      view.probe_stride = probes == 0 ? 0 : of_rows * cols;
      return view;
    };
    routing = {.rule = rule,
               .weights = take(DType::f32, rows, rule.chosen),
               .places = take(DType::i32, rows, rule.chosen),
               .rows = take(DType::i32, 1, rows * rule.chosen),
               .begins = take(DType::i32, 1, rule.experts + 1)};
  }
  std::vector<Buffer> storage;
  Routing routing;
};

class CudaMixture : public CudaTest {
 protected:
  /// x through the whole mixture on the device: gate and up, down, the weighted sum.
  Operand through(const ProbeTable& probes, const RoutingRule& rule, const Operand& logits, const Operand& x,
                  const Experts& inputs, const Experts& outputs, std::int64_t out_probes) {
    const std::int64_t count = probes.count();
    const std::int64_t rows = x.view.rows;
    const std::int64_t places = rows * rule.chosen;
    const std::int64_t middle_cols = inputs.host_products[0]->out() / 2;
    const std::int64_t routed = logits.view.shared() ? 0 : count;
    const auto perturbed = [](const Experts& experts) {
      return std::ranges::any_of(experts.device_products, [](const Product* p) { return p->perturbed(); });
    };
    const std::int64_t middle_probes = perturbed(inputs) ? count : routed;
    std::vector<PlannedProduct> planned = inputs.planned(rule, gate);
    for (const PlannedProduct& each : outputs.planned(rule, {})) planned.push_back(each);
    prepare(rows, count, planned);
    const DeviceRouting to(*cuda, rule, routed, rows);
    const Placed device_logits = place_f32(logits, count);
    const Placed device_x = place(x, count);
    cuda->route(probes, device_logits.view, to.routing);
    const Placed sent = room(Operand(routed, places, x.view.cols, 0), count);
    cuda->dispatch(probes, to.routing, device_x.view, sent.view);
    const Placed middle = room(Operand(middle_probes, places, middle_cols, 0), count);
    cuda->expert_product(probes, inputs.device_products, to.routing, sent.view, middle.view, gate);
    if (!perturbed(inputs) && cuda->gathers_rows(*inputs.device_products[0], gate)) {
      // The same rows from where they are have the same bits.
      const Placed gathered = room(Operand(routed, places, middle_cols, 0), count);
      cuda->dispatch_product(probes, inputs.device_products, to.routing, device_x.view, gathered.view, gate);
      const Operand once = gathered.host(), twice = middle.host();
      for (std::int64_t p = 0; p < std::max<std::int64_t>(routed, 1); ++p)
        EXPECT_TRUE(same_bits(once.view, p, twice.view, p)) << p;
    }
    const Placed back = room(Operand(out_probes, places, x.view.cols, 0), count);
    cuda->expert_product(probes, outputs.device_products, to.routing, middle.view, back.view, {});
    const Placed out = room(Operand(out_probes, rows, x.view.cols, 0), count);
    cuda->combine(probes, to.routing, back.view, out.view);
    return out.host();
  }

  static constexpr Epilogue gate{.activation = Activation::silu, .gated = true};
};

double largest(const Operand& of, std::int64_t probes) {
  double most = 0.0;
  for (std::int64_t p = 0; p < std::max<std::int64_t>(probes, 1); ++p) {
    for (std::int64_t i = 0; i < of.view.rows; ++i) {
      for (std::int64_t j = 0; j < of.view.cols; ++j) most = std::max(most, std::abs(double{of.at(p, i, j)}));
    }
  }
  return most;
}

TEST_P(CudaMixture, IsThatOfTheReference) {
  struct Sharing {
    bool routing, x, inputs, outputs;  // the routing's logits are shared; x is; which experts have tails
  };
  const Sharing sharings[] = {{false, false, false, false}, {false, false, true, true},
                              {false, true, false, true},   {true, true, false, false},
                              {true, true, true, false},    {true, true, false, true},
                              {true, true, true, true}};
  for (const RoutingRule rule :
       {RoutingRule{5, 2, true}, RoutingRule{37, 9, false}, RoutingRule{1, 1, true}}) {
    for (const auto& [in, middle] : {std::pair<std::int64_t, std::int64_t>{64, 40}, {33, 17}, {200, 136}}) {
      for (const std::int64_t rows : {1, 31, 257}) {
        if (rule.experts > 5 && rows == 31) continue;
        for (const Sharing& sharing : sharings) {
          SCOPED_TRACE(fmt::format("{} of {} experts [{}, {}], {} rows, shared routing {}, x {}, tails {} {}",
                                   rule.chosen, rule.experts, middle, in, rows, sharing.routing, sharing.x,
                                   sharing.inputs, sharing.outputs));
          constexpr std::int64_t count = 3;
          const Experts inputs(*cuda, dtype, rule.experts, in, {middle, middle}, sharing.inputs, 1);
          const Experts outputs(*cuda, dtype, rule.experts, middle, {in}, sharing.outputs, 7);
          const std::int64_t routed = sharing.routing ? 0 : count;
          const std::int64_t out_probes = sharing.routing && !sharing.inputs && !sharing.outputs ? 0 : count;
          const ProbeTable probes = table(count);
          const Operand logits(routed, rows, rule.experts, 3);
          const Operand x = operand(sharing.x ? 0 : count, rows, in, 4);
          // The reference, with the middle rounded as the device rounds it.
          RoutingStorage to(rule, routed, rows);
          reference->route(probes, logits.view, to.routing);
          const std::int64_t places = rows * rule.chosen;
          Operand sent(routed, places, in, 0);
          reference->dispatch(probes, to.routing, x.view, sent.view);
          const std::int64_t middle_probes = sharing.inputs && rule.experts > 1 ? count : routed;
          Operand between(middle_probes, places, middle, 0);
          reference->expert_product(probes, inputs.host_products, to.routing, sent.view, between.view, gate);
          const std::int64_t back_probes = out_probes;
          Operand back(back_probes, places, in, 0), expected(out_probes, rows, in, 0);
          reference->expert_product(probes, outputs.host_products, to.routing, between.view, back.view, {});
          reference->combine(probes, to.routing, back.view, expected.view);
          const Operand got = through(probes, rule, logits, x, inputs, outputs, out_probes);
          const double size = std::max(largest(back, back_probes), largest(expected, out_probes));
          // In bf16 `between` and `back` are rounded on the way: twice and once more for the sum.
          expect_near(got, expected, out_probes, tolerance(1e-5 * size, 3 * size));
        }
      }
    }
  }
}

TEST_P(CudaMixture, AProbesBitsDependOnItsRowsAlone) {
  const RoutingRule rule{16, 4, true};
  for (const bool tails : {false, true}) {
    for (const std::int64_t in : {64, 33}) {
      const Experts inputs(*cuda, dtype, 16, in, {72, 72}, tails, 1);
      const Experts outputs(*cuda, dtype, 16, 72, {in}, tails, 7);
      constexpr std::int64_t count = 5, rows = 300;
      const Operand logits(count, rows, 16, 3), x = operand(count, rows, in, 4);
      const Operand together = through(table(count), rule, logits, x, inputs, outputs, count);
      const std::vector<Probe> all = some_probes(count);
      for (std::int64_t p = 0; p < count; ++p) {
        const std::int64_t few = 37;  // and fewer rows of it
        Operand own_logits(1, few, 16, 0), own_x(1, few, in, 0);
        for (std::int64_t i = 0; i < few; ++i) {
          for (std::int64_t j = 0; j < 16; ++j) own_logits.at(0, i, j) = logits.at(p, i, j);
          for (std::int64_t j = 0; j < in; ++j) own_x.at(0, i, j) = x.at(p, i, j);
        }
        const Operand alone = through(table(std::vector<Probe>{all[std::size_t(p)]}), rule, own_logits, own_x,
                                      inputs, outputs, 1);
        EXPECT_TRUE(same_bits(alone.view, 0, together.view.probe(p).row_range(0, few), 0))
            << "probe " << p << ", tails " << tails << ", in " << in;
      }
    }
  }
}

TEST_P(CudaMixture, EqualLogitsAndThoseThatAreNoNumbers) {
  const RoutingRule rule{5, 2, true};
  const Experts inputs(*cuda, dtype, 5, 64, {32, 32}, false, 1), outputs(*cuda, dtype, 5, 32, {64}, false, 7);
  Operand logits(1, 3, 5, 0);
  const float nan = std::nanf("");
  const float values[] = {7, 7, 7, 7, 7, 1, nan, 2, nan, nan, nan, nan, nan, nan, nan};
  for (int i = 0; i < 15; ++i) logits.at(0, i / 5, i % 5) = values[i];
  const Operand x = operand(1, 3, 64, 4);
  const Operand got = through(table(1), rule, logits, x, inputs, outputs, 1);
  cuda->synchronize();
  // The lowest experts of equal logits: those of explicit ones.
  Operand explicit_logits(1, 3, 5, 0);
  const float chosen[] = {7, 7, 0, 0, 0, 1, 0, 2, 0, 0, 1, 0, 0, 0, 0};
  for (int i = 0; i < 15; ++i) explicit_logits.at(0, i / 5, i % 5) = chosen[i];
  const Operand want = through(table(1), rule, explicit_logits, x, inputs, outputs, 1);
  EXPECT_TRUE(same_bits(got.view.row_range(0, 2), 0, want.view.row_range(0, 2), 0));
  EXPECT_TRUE(std::isnan(got.at(0, 2, 0)));
}

TEST_P(CudaMixture, WhatDoesNotFitIsRefused) {
  const RoutingRule rule{5, 2, true};
  const Experts inputs(*cuda, dtype, 5, 64, {32, 32}, false, 1);
  prepare(31, 2, inputs.planned(rule, gate));
  EXPECT_THROW(prepare(31, 2, inputs.planned({cuda::most_experts + 1, 2, true}, gate)), DeviceError);
  const DeviceRouting to(*cuda, rule, 2, 31);
  const Placed sent = place(operand(2, 62, 64, 1), 2), few = place(operand(2, 61, 64, 1), 2);
  const Placed y = room(Operand(2, 62, 32, 0), 2), of_all = room(Operand(0, 62, 32, 0), 1);
  const std::span<const Product* const> all = inputs.device_products;
  EXPECT_THROW(cuda->expert_product(table(2), all.first(4), to.routing, sent.view, y.view, gate),
               DeviceError);
  EXPECT_THROW(cuda->expert_product(table(2), all, to.routing, few.view, y.view, gate), DeviceError);
  EXPECT_THROW(cuda->expert_product(table(2), all, to.routing, sent.view, of_all.view, gate), DeviceError);
  std::vector<const Product*> turned = inputs.device_products;
  std::swap(turned[1], turned[2]);
  EXPECT_THROW(cuda->expert_product(table(2), turned, to.routing, sent.view, y.view, gate), DeviceError);
}

INSTANTIATE_TEST_SUITE_P(Precisions, CudaMixture, ::testing::Values(true, false),
                         [](const auto& which) { return which.param ? "fp32" : "bf16"; });

}  // namespace
}  // namespace mezzo::test
