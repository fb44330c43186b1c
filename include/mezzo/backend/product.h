#pragma once
// A matrix product of the model and what may perturb it.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "mezzo/backend/perturbation.h"
#include "mezzo/backend/weight.h"
#include "mezzo/core/types.h"

namespace mezzo {

/// Rows [row_begin, row_begin + rows) of a product's weight: one Hugging Face module (q_proj of q | k | v) or
/// a whole one (GPT-2's c_attn).
struct ProductPart {
  std::string name;
  std::int64_t row_begin = 0;
  std::int64_t rows = 0;
  Perturbation perturbation = {};

  bool perturbed() const { return !std::holds_alternative<std::monostate>(perturbation); }
  /// Null where the part has another perturbation or none.
  const LowRankTail* tail() const { return std::get_if<LowRankTail>(&perturbation); }
  std::int64_t tail_rank() const { return tail() != nullptr ? tail()->a.rows : 0; }
};

/// y = W x + bias. Weights that share an input are one product of several parts. The product views its
/// storage; the model owns it.
struct Product {
  std::string name;
  Weight weight;  ///< [out, in]
  View bias;      ///< [1, out] in the activations' dtype, or empty
  std::vector<ProductPart> parts;
  float score_cap = 0.0f;  ///< c of c tanh(logit / c) in Backend::score(); 0: none

  std::int64_t out() const { return weight.out(); }
  std::int64_t in() const { return weight.in(); }
  /// Ranks of all tails.
  std::int64_t tail_ranks() const {
    std::int64_t ranks = 0;
    for (const ProductPart& part : parts) ranks += part.tail_rank();
    return ranks;
  }
  /// Whether it is the weight's own noise that its tails are.
  bool outer() const {
    return std::ranges::any_of(
        parts, [](const ProductPart& part) { return part.tail() != nullptr && part.tail()->outer; });
  }
  bool perturbed() const { return std::ranges::any_of(parts, &ProductPart::perturbed); }
};

}  // namespace mezzo
