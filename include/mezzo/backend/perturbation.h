#pragma once
// What a probe changes in a part of a product: y = W x + bias, W [rows, in]. `sigma*eps` is the probe's
// signed epsilon, Z_i the noise of tensor i under its seed (mezzo/core/noise.h), element index row-major over
// Z_i. The tensors are those of Trainables::list.
#include <cstdint>
#include <string_view>
#include <variant>

#include "mezzo/core/noise.h"
#include "mezzo/core/types.h"

namespace mezzo {

/// y += scaling * B_p s, s = A_p x, of one of two kinds.
///
/// LoRA (Hu et al. 2021, eq. 3): A_p = A + sigma*eps * Z_A, B_p = B + sigma*eps * Z_B. The views point into
/// the trainables and are owned by them.
///
/// Outer: W itself is trained, along the low-rank noise of mezzo/core/noise.h. A_p = Z_A = V^T,
/// B_p = sigma*eps * Z_B = sigma*eps * U, scaling = 1 / sqrt(r). A and B are zero and have no data.
struct LowRankTail {
  View a;  ///< [r, in] fp32
  View b;  ///< [rows of the part, r] fp32
  NoiseTensor a_noise = {};
  NoiseTensor b_noise = {};
  float scaling = 1.0f;  ///< LoRA: lora_alpha / r
  bool outer = false;
  View weight = {};  ///< outer: [rows, in] fp32, the trainable that W is

  /// What A's noise is multiplied by in a probe of this signed epsilon.
  float a_epsilon(float epsilon) const { return outer && epsilon != 0.0f ? 1.0f : epsilon; }
};

/// A tensor of the model is trained itself, along the noise of its elements (MeZO: Malladi et al. 2023,
/// arXiv:2305.17333): a probe's is value + sigma*eps * Z. No device serves parts with it: the decoder makes
/// each probe's tensor by Backend::perturb() and asks for a product without a perturbation.
struct DenseNoise {
  View value = {};  ///< [rows, cols] dense, the trainable that the tensor is
  std::uint32_t tensor = 0;
};

/// The first alternative is none: the part is the same for all probes, and shared by them where x is.
using Perturbation = std::variant<std::monostate, LowRankTail, DenseNoise>;

/// For messages: "none", "low-rank tail", "dense noise".
std::string_view name_of(const Perturbation& perturbation);

}  // namespace mezzo
