// A block whose MLP is a mixture of experts. On the arena, its top above, N = rows * chosen places:
//
//     | back         [N, H]  | the delta is there    (1)
//     | middle       [N, I]  | back is there
//     | sent         [N, H]  | the middle is there  (2)
//     | routing, logits      | the delta is there
//     | delta        [., H]  | its sum with h is stored; lies in `place` if that is shared alike
//
//   (1) lies where sent was if that is shared alike
//   (2) not where the device takes the rows from where they are
#include <algorithm>

#include "forward.h"

namespace mezzo {

Routing Forward::take_routing(const RoutingRule& rule, std::int64_t probes, std::int64_t rows) {
  const auto integers = [&](std::int64_t of_rows, std::int64_t cols) {
    return arena_.take(DType::i32, probes, of_rows, cols, cols);
  };
  Routing routing{.rule = rule,
                  .weights = arena_.take(DType::f32, probes, rows, rule.chosen, rule.chosen),
                  .places = integers(rows, rule.chosen),
                  .rows = integers(1, rows * rule.chosen),
                  .begins = integers(1, rule.experts + 1)};
  return routing;
}

View Forward::mixture_delta(const BlockSpec& block, const MixtureSpec& mixture, const View& x,
                            const View& place, const ProbeTable& table) {
  const Product& router = weights_.product(block.input);
  const auto products_at = [&](const std::vector<PartIndex>& parts) {
    std::vector<const Product*> products;
    for (const PartIndex part : parts) products.push_back(&weights_.product(part));
    return products;
  };
  const std::vector<const Product*> inputs = products_at(mixture.inputs);
  const std::vector<const Product*> outputs = products_at(mixture.outputs);
  const auto perturbed = [](const Product* product) { return product->perturbed(); };
  // Each probe has its own where its rows go other ways, and from the first perturbed expert on.
  const std::int64_t routed_probes = x.shared() && !router.perturbed() ? 0 : table.count();
  const std::int64_t middle_probes = std::ranges::any_of(inputs, perturbed) ? table.count() : routed_probes;
  const std::int64_t delta_probes = std::ranges::any_of(outputs, perturbed) ? table.count() : middle_probes;
  const std::int64_t places = x.rows * mixture.rule.chosen;

  const bool shared_alike = place.shared() == (delta_probes == 0);
  const View delta = shared_alike ? place : take(delta_probes, x.rows, spec_.hidden);
  const View logits =
      arena_.take(DType::f32, routed_probes, x.rows, mixture.rule.experts, mixture.rule.experts);
  const Routing routing = take_routing(mixture.rule, routed_probes, x.rows);
  const Epilogue& into_middle = epilogue_of(mixture.inputs.front());
  const bool gathers =
      std::ranges::none_of(inputs, perturbed) && sizes_.gathers_rows(*inputs.front(), into_middle);
  const View sent = gathers ? View{} : take_input(routed_probes, places, *inputs.front());
  const View middle = take_input(middle_probes, places, *outputs.front());
  const View back =
      !gathers && delta_probes == routed_probes ? sent : take(delta_probes, places, spec_.hidden);
  if (backend_ == nullptr) return delta;
  backend_->product(table, router, 0, x, {{logits}}, epilogue_of(block.input));
  backend_->route(table, logits, routing);
  if (gathers) {
    backend_->dispatch_product(table, inputs, routing, x, middle, into_middle);
  } else {
    backend_->dispatch(table, routing, x, sent);
    backend_->expert_product(table, inputs, routing, sent, middle, into_middle);
  }
  backend_->expert_product(table, outputs, routing, middle, back, epilogue_of(mixture.outputs.front()));
  backend_->combine(table, routing, back, delta);
  return delta;
}

}  // namespace mezzo
