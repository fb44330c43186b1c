// The cuda backend's mixtures of experts: where rows go, and the experts' products. Places are counted
// through all probes (kernels/cuda/routing.h), so that a product of an expert has the rows of all of them.
#include <algorithm>

#include "cuda_backend.h"
#include "cuda_operands.h"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/routing.h"

namespace mezzo {
namespace {

/// The kernels' view of a routing of `rows` rows.
cuda::Routes routes_of(const char* operation, const Routing& routing, std::int64_t rows,
                       const ProbeTable& table) {
  const RoutingRule& rule = routing.rule;
  const auto check = [&](const char* operand, const View& view, std::int64_t of_rows, std::int64_t cols,
                         DType dtype) {
    check_view(operation, operand, view, of_rows, cols, dtype);
    if (view.row_stride != cols || !is_flat(view) || view.shared() != routing.shared())
      throw DeviceError("{}: {} of the routing are not dense, or not shared as its weights are", operation,
                        operand);
  };
  check("weights", routing.weights, rows, rule.chosen, DType::f32);
  check("places", routing.places, rows, rule.chosen, DType::i32);
  check("rows", routing.rows, 1, rows * rule.chosen, DType::i32);
  check("begins", routing.begins, 1, rule.experts + 1, DType::i32);
  return {.rows = rows,
          .experts = rule.experts,
          .chosen = rule.chosen,
          .copies = copies_on(routing.weights, table),
          .weights = routing.weights.as<float>(),
          .places = routing.places.as<std::int32_t>(),
          .rows_at = routing.rows.as<std::int32_t>(),
          .begins = routing.begins.as<std::int32_t>()};
}

/// The experts' weights, which lie equally far apart.
cuda::ExpertWeights weights_of(std::span<const Product* const> experts) {
  const View& first = experts[0]->weight.codes;
  const auto* const begin = static_cast<const std::byte*>(first.data);
  const auto address = [&](std::size_t e) {
    return static_cast<const std::byte*>(experts[e]->weight.codes.data);
  };
  const std::ptrdiff_t apart = experts.size() > 1 ? address(1) - begin : 0;
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const View& codes = experts[e]->weight.codes;
    const bool alike = codes.rows == first.rows && codes.cols == first.cols &&
                       codes.row_stride == first.row_stride &&
                       address(e) - begin == static_cast<std::ptrdiff_t>(e) * apart;
    if (alike) continue;
    throw DeviceError("expert_product: the weight [{}, {}] of {} is not as those of the other experts lie",
                      codes.rows, codes.cols, experts[e]->name);
  }
  return {.data = first.data,
          .row_stride = first.row_stride,
          .expert_stride = apart / static_cast<std::ptrdiff_t>(size_of(first.dtype)),
          .out = first.rows,
          .in = first.cols};
}

std::int64_t ranks_of(std::span<const Product* const> experts) {
  std::int64_t most = 0;
  for (const Product* const expert : experts) most = std::max(most, expert->tail_ranks());
  return most;
}

}  // namespace

void CudaBackend::route(const ProbeTable& table, View logits, const Routing& routing) {
  check_view("route", "logits", logits, logits.rows, routing.rule.experts, DType::f32);
  check_sharing("route", routing.weights, logits);
  const cuda::Routes routes = routes_of("route", routing, logits.rows, table);
  MEZZO_CUDA(cuda::choose_experts(matrices(logits), routes, routing.rule.renormalised, stream()));
  MEZZO_CUDA(cuda::place_rows(routes, stream()));
}

void CudaBackend::dispatch(const ProbeTable& table, const Routing& routing, View x, View out) {
  const cuda::Routes routes = routes_of("dispatch", routing, x.rows, table);
  check_view("dispatch", "out", out, routes.places_a_copy(), x.cols, dtype_);
  check_view("dispatch", "x", x, x.rows, x.cols, dtype_);
  check_sharing("dispatch", routing.weights, x);
  if (out.shared() != routing.shared())
    throw DeviceError("dispatch: only one of out and the routing is shared by the probes");
  MEZZO_CUDA(cuda::dispatch(matrices(x), routes, x.cols, matrices(out), stream()));
}

void CudaBackend::combine(const ProbeTable& table, const Routing& routing, View x, View out) {
  const cuda::Routes routes = routes_of("combine", routing, out.rows, table);
  check_view("combine", "x", x, routes.places_a_copy(), out.cols, dtype_);
  check_view("combine", "out", out, out.rows, out.cols, dtype_);
  check_sharing("combine", out, x);
  check_sharing("combine", x, routing.weights);
  MEZZO_CUDA(cuda::combine(matrices(x), routes, out.cols, copies_on(out, table), matrices(out), stream()));
}

void CudaBackend::expert_product(const ProbeTable& table, std::span<const Product* const> experts,
                                 const Routing& routing, View x, View y, Epilogue epilogue) {
  constexpr const char* operation = "expert_product";
  if (std::ssize(experts) != routing.rule.experts)
    throw DeviceError("{}: there are products of {} experts, expected {}", operation, experts.size(),
                      routing.rule.experts);
  const cuda::Routes routes = routes_of(operation, routing, routing.weights.rows, table);
  for (const Product* const expert : experts) check_input(operation, *expert, x);
  check_view(operation, "x", x, routes.places_a_copy(), experts[0]->in(), dtype_);
  check_view(operation, "y", y, x.rows, epilogue.gated ? experts[0]->out() / 2 : experts[0]->out(), dtype_);
  check_sharing(operation, y, x);
  check_sharing(operation, x, routing.weights);
  if (!is_flat(x) || !is_flat(y)) throw DeviceError("{}: x or y is not one matrix of all probes", operation);
  const ExpertsInFlight flight{.experts = experts,
                               .weights = weights_of(experts),
                               .routes = routes,
                               .ranks = ranks_of(experts),
                               .epilogue = epilogue};
  if (plan_.tiles_experts(*experts[0], epilogue) && flight.ranks == 0 && x.shared() == y.shared()) {
    expert_tiles(table, flight, x, y);
  } else {
    expert_rows(table, flight, x, y);
  }
}

void CudaBackend::dispatch_product(const ProbeTable& table, std::span<const Product* const> experts,
                                   const Routing& routing, View x, View y, Epilogue epilogue) {
  constexpr const char* operation = "dispatch_product";
  const cuda::Routes routes = routes_of(operation, routing, x.rows, table);
  const auto gathers = [&](const Product* expert) { return plan_.gathers_rows(*expert, epilogue); };
  if (std::ssize(experts) != routes.experts || !std::ranges::all_of(experts, gathers))
    throw DeviceError("{}: {} experts, of {}, do not gather their rows", operation, experts.size(),
                      routes.experts);
  for (const Product* const expert : experts) check_input(operation, *expert, x);
  check_view(operation, "y", y, routes.places_a_copy(), experts[0]->out() / 2, dtype_);
  check_sharing(operation, routing.weights, x);
  if (!is_flat(x) || !is_flat(y) || y.shared() != routing.shared())
    throw DeviceError("{}: x or y is not one matrix of all probes, or y not shared as the routing is",
                      operation);
  const cuda::ExpertRows rows{.x = x.data,
                              .dtype = dtype_,
                              .x_stride = x.row_stride,
                              .first = 0,
                              .count = routes.all_places(),
                              .begins = routes.begins,
                              .experts = routes.experts,
                              .rows_at = routes.rows_at,
                              .period = x.shared() ? x.rows : routes.copies * x.rows};
  MEZZO_CUDA(cuda::multiply_gated_experts(
      rows, weights_of(experts), static_cast<cuda::Curve>(epilogue.activation), matrices(y), stream()));
}

void CudaBackend::expert_tiles(const ProbeTable& table, const ExpertsInFlight& flight, const View& x,
                               const View& y) {
  // Probes that share the routing, but not x, have each expert's places apart.
  const cuda::Routes& routes = flight.routes;
  const std::int64_t copies = copies_on(y, table);
  const std::int64_t runs = routes.copies == copies ? 1 : copies;
  for (std::int64_t run = 0; run < runs; ++run) {
    const std::int64_t first = run * x.rows;
    const cuda::ExpertRows rows{.x = row_of(x, first),
                                .dtype = dtype_,
                                .x_stride = x.row_stride,
                                .first = 0,
                                .count = copies / runs * x.rows,
                                .begins = routes.begins,
                                .experts = routes.experts};
    cuda::Matrices to = matrices(y);
    to.data = row_of(y, first);
    if (flight.epilogue.gated) {
      MEZZO_CUDA(cuda::multiply_gated_experts(
          rows, flight.weights, static_cast<cuda::Curve>(flight.epilogue.activation), to, stream()));
    } else {
      MEZZO_CUDA(cuda::multiply_expert_tiles(rows, flight.weights, to, stream()));
    }
  }
}

void CudaBackend::expert_rows(const ProbeTable& table, const ExpertsInFlight& flight, const View& x,
                              const View& y) {
  constexpr const char* operation = "expert_product";
  const cuda::Routes& routes = flight.routes;
  const std::int64_t copies = copies_on(y, table);
  const bool together = routes.copies == copies;  // places are counted through the copies
  const cuda::ExpertPlaces places{.begins = routes.begins,
                                  .experts = routes.experts,
                                  .a_copy = x.rows,
                                  .copies = copies,
                                  .shared = !together};
  if (table.device.data() == nullptr)
    throw DeviceError("{} {}: the probes were not uploaded", operation, flight.experts[0]->name);
  const DeviceTable device(table);
  if (flight.ranks > 0) {
    check_scratch(operation, "tails", scratch_.s, copies * x.rows * flight.ranks);
    each_tails(flight, [&](const cuda::ExpertTails& tails) {
      MEZZO_CUDA(cuda::project_experts(matrices(x), flight.weights.in, places, tails, table.noise,
                                       device.probes, flight.ranks, scratch_.s.as<float>(), stream()));
    });
  }
  const std::int64_t stride = aligned_floats(flight.weights.out);
  // Rows of W x: of all copies, of the one that they share, or a copy at a time.
  const std::int64_t runs = together || x.shared() ? 1 : copies;
  const std::int64_t rows = together ? copies * x.rows : x.rows;
  const std::int64_t rows_a_range = range_rows(operation, stride, rows);
  for (std::int64_t run = 0; run < runs; ++run) {
    for (std::int64_t first = 0; first < rows; first += rows_a_range) {
      const std::int64_t count = std::min(rows_a_range, rows - first);
      multiply_range(flight,
                     {.x = row_of(x, run * x.rows + first),
                      .dtype = dtype_,
                      .x_stride = x.row_stride,
                      .first = first,
                      .count = count,
                      .begins = routes.begins,
                      .experts = routes.experts},
                     stride);
      const cuda::ExpertFinish finish{.base = scratch_.accumulators.as<float>(),
                                      .base_stride = stride,
                                      .first = first,
                                      .count = count,
                                      .copy = run,
                                      .copies = copies / runs,
                                      .gated = flight.epilogue.gated,
                                      .curve = static_cast<cuda::Curve>(flight.epilogue.activation),
                                      .s = flight.ranks > 0 ? scratch_.s.as<float>() : nullptr,
                                      .ranks = flight.ranks,
                                      .cols = y.cols,
                                      .y = matrices(y)};
      each_tails(flight, [&](const cuda::ExpertTails& tails) {
        MEZZO_CUDA(cuda::finish_experts(finish, places, tails, table.noise, device.probes, stream()));
      });
    }
  }
}

void CudaBackend::multiply_range(const ExpertsInFlight& flight, const cuda::ExpertRows& rows,
                                 std::int64_t y_stride) {
  if (plan_.tiles_experts(*flight.experts[0], {})) {
    const cuda::Matrices to{.data = scratch_.accumulators.data, .dtype = DType::f32, .row_stride = y_stride};
    MEZZO_CUDA(cuda::multiply_expert_tiles(rows, flight.weights, to, stream()));
  } else {
    MEZZO_CUDA(
        cuda::multiply_experts(rows, flight.weights, scratch_.accumulators.as<float>(), y_stride, stream()));
  }
}

void CudaBackend::each_tails(const ExpertsInFlight& flight,
                             const std::function<void(const cuda::ExpertTails& tails)>& use) {
  const std::size_t parts = flight.epilogue.gated ? 2 : 1;
  for (std::size_t first = 0; first < flight.experts.size(); first += cuda::tails_a_launch) {
    cuda::ExpertTails tails;
    tails.first = static_cast<int>(first);
    tails.count =
        static_cast<int>(std::min<std::size_t>(cuda::tails_a_launch, flight.experts.size() - first));
    tails.parts = static_cast<int>(parts);
    for (std::size_t e = first; e < first + static_cast<std::size_t>(tails.count); ++e) {
      const Product& expert = *flight.experts[e];
      if (expert.parts.size() != parts)
        throw DeviceError("expert_product: {} has {} parts, expected {}", expert.name, expert.parts.size(),
                          parts);
      if (expert.bias) throw DeviceError("expert_product: {} has a bias, which is not served", expert.name);
      std::int32_t ranks = 0;
      for (std::size_t part = 0; part < parts; ++part) {
        const LowRankTail* const tail = expert.parts[part].tail();
        if (tail == nullptr) continue;
        tails.tail[(e - first) * parts + part] = {.a = tail->a.as<float>(),
                                                  .b = tail->b.as<float>(),
                                                  .a_noise = tail->a_noise,
                                                  .b_noise = tail->b_noise,
                                                  .rank = static_cast<std::int32_t>(tail->a.rows),
                                                  .rank_begin = ranks,
                                                  .scaling = tail->scaling};
        ranks += static_cast<std::int32_t>(tail->a.rows);
      }
    }
    use(tails);
  }
}

}  // namespace mezzo
