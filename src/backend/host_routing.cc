#include "host_routing.h"

#include <algorithm>

#include "host_backend.h"
#include "mezzo/core/error.h"

namespace mezzo {
namespace {

std::int64_t rows_of(const Routing& routing) { return routing.weights.rows; }
std::int64_t places_of(const Routing& routing) { return routing.rows.cols; }

void check_integers(const char* operation, const char* operand, const Routing& routing, const View& view,
                    std::int64_t rows, std::int64_t cols) {
  const bool fits = view && view.dtype == DType::i32 && view.rows == rows && view.cols == cols &&
                    view.row_stride == cols && view.shared() == routing.shared();
  if (fits) return;
  throw DeviceError(
      "{}: {} of the routing are [{}, {}] of {}, expected dense [{}, {}] of I32, shared as its weights are",
      operation, operand, view.rows, view.cols, name_of(view.dtype), rows, cols);
}

void check_routing(const char* operation, const Routing& routing, std::int64_t rows) {
  const RoutingRule& rule = routing.rule;
  if (rule.chosen < 1 || rule.chosen > rule.experts)
    throw DeviceError("{}: {} experts of {} were to be chosen", operation, rule.chosen, rule.experts);
  check_shape(operation, "weights of the routing", routing.weights, rows, rule.chosen);
  check_integers(operation, "places", routing, routing.places, rows, rule.chosen);
  check_integers(operation, "rows", routing, routing.rows, 1, rows * rule.chosen);
  check_integers(operation, "begins", routing, routing.begins, 1, rule.experts + 1);
}

}  // namespace

void place_rows(const Routing& routing, std::int64_t p) {
  const std::int64_t experts = routing.rule.experts;
  const std::int64_t chosen = routing.rule.chosen;
  std::int32_t* const place = integers_of(routing.places, p);
  std::int32_t* const row = integers_of(routing.rows, p);
  std::int32_t* const begin = integers_of(routing.begins, p);
  std::fill(begin, begin + experts + 1, 0);
  for (std::int64_t i = 0; i < places_of(routing); ++i) ++begin[place[i] + 1];
  for (std::int64_t e = 0; e < experts; ++e) begin[e + 1] += begin[e];
  // begin[e] goes ahead to where expert e ends, which is where e + 1 begins.
  for (std::int64_t t = 0; t < rows_of(routing); ++t) {
    for (std::int64_t j = t * chosen; j < (t + 1) * chosen; ++j) {
      place[j] = begin[place[j]]++;
      row[place[j]] = static_cast<std::int32_t>(t);
    }
  }
  std::copy_backward(begin, begin + experts, begin + experts + 1);
  begin[0] = 0;
}

void check_route(const View& logits, const Routing& routing) {
  check_routing("route", routing, logits.rows);
  check_shape("route", "logits", logits, logits.rows, routing.rule.experts);
  check_sharing("route", routing.weights, logits);
}

void check_dispatch(const ProbeTable& table, const Routing& routing, const View& x, const View& out) {
  check_routing("dispatch", routing, x.rows);
  check_shape("dispatch", "out", out, places_of(routing), x.cols);
  check_sharing("dispatch", out, x);
  check_sharing("dispatch", out, routing.weights);
  check_indices("dispatch", "rows of the routing", routing.rows, x.rows, table.count());
}

void check_expert_product(const ProbeTable& table, std::span<const Product* const> experts,
                          const Routing& routing, const View& x, const View& y) {
  constexpr const char* operation = "expert_product";
  check_routing(operation, routing, rows_of(routing));
  if (std::ssize(experts) != routing.rule.experts) {
    throw DeviceError("{}: there are products of {} experts, expected {}", operation, experts.size(),
                      routing.rule.experts);
  }
  for (const Product* const expert : experts) {
    if (expert->in() == experts[0]->in() && expert->out() == experts[0]->out()) continue;
    throw DeviceError("{}: {} is [{}, {}], but {} is [{}, {}]", operation, expert->name, expert->out(),
                      expert->in(), experts[0]->name, experts[0]->out(), experts[0]->in());
  }
  check_shape(operation, "x", x, places_of(routing), experts[0]->in());
  check_shape(operation, "y", y, places_of(routing), y.cols);
  check_sharing(operation, y, x);
  check_sharing(operation, x, routing.weights);
  for (std::int64_t p = 0; p < (routing.shared() ? 1 : table.count()); ++p) {
    const std::int32_t* const begin = integers_of(routing.begins, p);
    const bool cover = begin[0] == 0 && begin[routing.rule.experts] == places_of(routing) &&
                       std::is_sorted(begin, begin + routing.rule.experts + 1);
    if (!cover) throw DeviceError("{}: the experts' places do not cover all places", operation);
  }
}

void check_combine(const ProbeTable& table, const Routing& routing, const View& x, const View& out) {
  check_routing("combine", routing, out.rows);
  check_shape("combine", "x", x, places_of(routing), out.cols);
  check_shape("combine", "out", out, out.rows, x.cols);
  check_sharing("combine", out, x);
  check_sharing("combine", out, routing.weights);
  View places = routing.places;  // dense: one row of indices
  places.rows = 1;
  places.cols = places_of(routing);
  check_indices("combine", "places of the routing", places, x.rows, table.count());
}

}  // namespace mezzo
