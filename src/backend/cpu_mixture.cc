// The cpu backend's mixtures of experts but for their products.
#include <algorithm>

#include "cpu_backend.h"
#include "host_routing.h"
#include "kernels/cpu/routing.h"

namespace mezzo {

void CpuBackend::route(const ProbeTable& table, View logits, const Routing& routing) {
  check_route(logits, routing);
  const RoutingRule& rule = routing.rule;
  const std::int64_t copies = copies_of(routing.weights, table);
  for_rows(copies, logits.rows, [&](std::int64_t p, std::int64_t t) {
    cpu::choose_experts(rows_of(logits, p).row(t), rule.experts, rule.chosen, rule.renormalised,
                        integers_of(routing.places, p) + t * rule.chosen, rows_of(routing.weights, p).row(t));
  });
  parallel(copies, [&](std::int64_t p, int) { place_rows(routing, p); });
}

void CpuBackend::dispatch(const ProbeTable& table, const Routing& routing, View x, View out) {
  check_dispatch(table, routing, x, out);
  for_rows(copies_of(out, table), out.rows, [&](std::int64_t p, std::int64_t i) {
    const float* from = rows_of(x, p).row(integers_of(routing.rows, p)[i]);
    std::copy(from, from + x.cols, rows_of(out, p).row(i));
  });
}

void CpuBackend::combine(const ProbeTable& table, const Routing& routing, View x, View out) {
  check_combine(table, routing, x, out);
  const std::int64_t chosen = routing.rule.chosen;
  for_rows(copies_of(out, table), out.rows, [&](std::int64_t p, std::int64_t t) {
    cpu::combine(rows_of(routing.weights, p).row(t), integers_of(routing.places, p) + t * chosen, chosen,
                 rows_of(x, p), out.cols, rows_of(out, p).row(t));
  });
}

}  // namespace mezzo
