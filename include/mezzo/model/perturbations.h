#pragma once
// What a model needs to know of training: which of its parts a probe perturbs, and how. A parameter space
// (zo) makes it; the decoder takes it.
#include <map>
#include <string>

#include "mezzo/backend/perturbation.h"

namespace mezzo {

/// A tail by a product part's full name ("model.layers.0.self_attn.q_proj"), dense noise by a tensor's
/// ("model.norm.weight"). What has no entry is the same for all probes. The views point into the trainables,
/// which must outlive whoever holds this.
using Perturbations = std::map<std::string, Perturbation>;

}  // namespace mezzo
