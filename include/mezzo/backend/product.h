#pragma once
// A matrix product of the model and what may perturb it.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mezzo/core/types.h"

namespace mezzo {

/// y += scaling * (B s + sigma*eps * Z_B s),  s = A x + sigma*eps * Z_A x: LoRA (Hu et al. 2021, eq. 3) with
/// both factors perturbed. Z_A and Z_B are the noise of tensors a_id and b_id under the probe's seed, element
/// index row-major over the factor. All views point into the trainables and are owned by them.
struct LowRankTail {
  View a;  ///< [r, in] fp32
  View b;  ///< [rows of the part, r] fp32
  std::uint32_t a_id = 0;
  std::uint32_t b_id = 0;
  float scaling = 1.0f;  ///< lora_alpha / r
};

/// Rows [row_begin, row_begin + rows) of a product's weight: one Hugging Face module (q_proj of q | k | v) or
/// a whole one (GPT-2's c_attn). `tail` empty: not perturbed, and shared by all probes when its input is.
/// Dense and vector noise will be further alternatives beside `tail`.
struct ProductPart {
  std::string name;
  std::int64_t row_begin = 0;
  std::int64_t rows = 0;
  std::optional<LowRankTail> tail;
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
    for (const ProductPart& part : parts) {
      if (part.tail) ranks += part.tail->a.rows;
    }
    return ranks;
  }
  bool perturbed() const { return tail_ranks() > 0; }
};

}  // namespace mezzo
