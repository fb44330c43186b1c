#pragma once
// How a next token is chosen: greedily, or drawn with a temperature from a nucleus. A draw is a pure function
// of (seed, step, example, sample, place, token): Gumbel numbers (Gumbel 1954; Maddison et al. 2014,
// arXiv:1411.0030), the same for every probe, so that only its perturbation tells a probe's completions from
// another's.
#include <cstdint>

#include "mezzo/core/noise.h"

namespace mezzo {

struct Sampling {
  float temperature = 0.0f;  ///< 0: greedy
  float top_p = 1.0f;        ///< in (0, 1]: the nucleus (Holtzman et al. 2020, arXiv:1904.09751); 1: all
  bool operator==(const Sampling&) const = default;
};

/// The Philox key of all draws of one completion. `example`: its number among the step's.
MEZZO_HOST_DEVICE inline std::uint64_t draw_key(std::uint64_t seed, std::uint64_t step, std::uint64_t example,
                                                std::uint32_t sample) {
  const auto words = [](std::uint64_t block, std::uint32_t tensor, std::uint64_t key) {
    const PhiloxWords drawn =
        philox4x32_10(philox_counter(block, tensor, Purpose::sampling), philox_key(key));
    return drawn.word[0] | std::uint64_t{drawn.word[1]} << 32;
  };
  return words(example, sample, words(step, 0, seed));
}

/// -log E, E = -log u: a standard Gumbel number of a random word, with relative precision in E.
MEZZO_HOST_DEVICE inline float gumbel(std::uint32_t word) {
  const float e = ieee::mul(0.5f, minus_2_log_uniform(word));
  const std::uint32_t bits = ieee::to_bits(e);
  const std::int32_t exponent = balanced_exponent(bits);
  const std::uint32_t mantissa = bits - (static_cast<std::uint32_t>(exponent) << 23);
  return ieee::mul(0.5f, minus_2_log(exponent, ieee::add(ieee::from_bits(mantissa), -1.0f)));
}

/// The Gumbel number of token `id` at new token `place` of the completion with this key.
MEZZO_HOST_DEVICE inline float gumbel_at(std::uint64_t key, std::uint32_t place, std::uint32_t id) {
  const PhiloxWords words = philox4x32_10(philox_counter(id / 4, place, Purpose::sampling), philox_key(key));
  return gumbel(words.word[id % 4]);
}

/// What a token is chosen by: the largest wins, of equal ones the least id.
MEZZO_HOST_DEVICE inline float draw_score(float logit, float inverse_temperature, float drawn) {
  return ieee::fma(logit, inverse_temperature, drawn);
}

}  // namespace mezzo
