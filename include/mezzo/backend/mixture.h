#pragma once
// A mixture of experts (Shazeer et al. 2017, arXiv:1701.06538; Jiang et al. 2024, arXiv:2401.04088): a router
// sends each row to a few of many MLPs, and their results are added with the router's weights.
#include <cstdint>

#include "mezzo/core/types.h"

namespace mezzo {

/// What a router's logits say.
struct RoutingRule {
  std::int64_t experts = 0;
  std::int64_t chosen = 0;  ///< of a row: those of its largest logits; of equal logits the lower expert's
  /// The weights are a softmax over the chosen experts' logits, else over all experts' logits.
  bool renormalised = true;

  bool operator==(const RoutingRule&) const = default;
};

/// Where T rows go. A row takes one place at each of its experts. The places of an expert stand together in
/// the order of rows, and experts stand in ascending order. T rows so take T * chosen places whatever the
/// router says: no row is dropped, and no size depends on the routing. All views are dense, and either all
/// are shared or each probe has its own.
///
/// What the views hold is read by the backend that filled them alone: one may count the places, and with them
/// the rows, through the matrices of all probes, so that an expert's places of all probes stand together.
struct Routing {
  RoutingRule rule;
  View weights;  ///< [T, chosen] fp32: of a row's experts, in ascending order of experts
  View places;   ///< [T, chosen] i32: of a row at the same experts
  View rows;     ///< [1, T * chosen] i32: the row at each place
  View begins;   ///< [1, experts + 1] i32: the first place of each expert; then T * chosen

  bool shared() const { return weights.shared(); }
};

}  // namespace mezzo
