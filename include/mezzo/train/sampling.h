#pragma once
// The next token of a text, chosen from the model's logits.
#include <cstdint>
#include <span>

namespace mezzo {

/// How next tokens are chosen. Draws depend on the seed and on their number alone.
struct Sampling {
  double temperature = 0.0;  ///< logits are divided by it; 0: greedy
  double top_p = 1.0;        ///< in [0, 1]: share of the probability that is drawn from
  std::uint64_t seed = 42;
};

/// The `n`-th token of a text. Greedy, the largest logit; else a draw from the nucleus, the fewest tokens
/// whose probability reaches top_p, but one at least (Holtzman et al. 2020, "The Curious Case of Neural Text
/// Degeneration"). Of equal logits the smaller id comes first. `logits` [vocabulary], not empty, finite.
std::int32_t next_token(std::span<const float> logits, const Sampling& sampling, std::uint64_t n);

}  // namespace mezzo
