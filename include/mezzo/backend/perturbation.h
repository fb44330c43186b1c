#pragma once
// What a probe changes in a part of a product: y = W x + bias, W [rows, in]. `sigma*eps` is the probe's
// signed epsilon, Z_i the noise of tensor i under its seed (mezzo/core/noise.h), element index row-major over
// Z_i. The tensors are those of Trainables::list.
#include <cstdint>
#include <string_view>
#include <variant>

#include "mezzo/core/types.h"

namespace mezzo {

/// y += scaling * (B s + sigma*eps * Z_B s),  s = A x + sigma*eps * Z_A x: LoRA (Hu et al. 2021, eq. 3) with
/// both factors perturbed. All views point into the trainables and are owned by them.
struct LowRankTail {
  View a;  ///< [r, in] fp32
  View b;  ///< [rows of the part, r] fp32
  std::uint32_t a_id = 0;
  std::uint32_t b_id = 0;
  float scaling = 1.0f;  ///< lora_alpha / r
};

/// y += sigma*eps / sqrt(rank) * U (V^T x): W itself is trained, along noise of low rank. The columns of U
/// [rows, rank] and then of V [in, rank] are the noise of one tensor.
struct OuterProduct {
  std::uint32_t id = 0;
  std::int64_t rank = 1;
};

/// y += sigma*eps * Z x, Z [rows, in]: W itself is trained.
struct DenseNoise {
  std::uint32_t id = 0;
};

/// y += sigma*eps * z, z [rows]: the bias is trained.
struct VectorNoise {
  std::uint32_t id = 0;
};

/// The first alternative is none: the part is the same for all probes, and shared by them where x is.
using Perturbation = std::variant<std::monostate, LowRankTail, OuterProduct, DenseNoise, VectorNoise>;

/// For messages: "none", "low-rank tail", "outer product", "dense noise", "vector noise".
std::string_view name_of(const Perturbation& perturbation);

}  // namespace mezzo
