#pragma once
// The choice of a next token.
#include <cstdint>

#include "mezzo/core/sampling.h"

namespace mezzo::reference {

/// The token that mezzo/core/sampling.h chooses by `logits` [count]: with a temperature the largest
/// draw_score() over the nucleus, the fewest tokens in the order of (probability, then id) whose
/// probabilities come to top_p. -1 where a logit is NaN or none is above -infinity.
std::int32_t choose_token(const float* logits, std::int64_t count, const Sampling& sampling,
                          std::uint64_t key, std::uint32_t place);

}  // namespace mezzo::reference
