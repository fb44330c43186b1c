#pragma once
// A matrix product of the model and what may perturb it.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "mezzo/backend/perturbation.h"
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
  View weight;  ///< [out, in] in the backend's weight dtype; row stride of Backend::weight_stride
  View bias;    ///< [1, out] in the weight's dtype, or empty
  std::int64_t stored_rows = 0;  ///< of the weight's storage; 0: out()
  std::vector<ProductPart> parts;

  std::int64_t out() const { return weight.rows; }
  std::int64_t in() const { return weight.cols; }
  /// Ranks of all tails.
  std::int64_t tail_ranks() const {
    std::int64_t ranks = 0;
    for (const ProductPart& part : parts) ranks += part.tail_rank();
    return ranks;
  }
  bool perturbed() const { return std::ranges::any_of(parts, &ProductPart::perturbed); }
};

}  // namespace mezzo
