#include "rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

/// Long waves are stretched by `factor`, short ones kept, those between blended
/// (_compute_llama3_parameters).
float stretched_as_llama3(const RopeDescription& rope, float frequency) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const double low = rope.original_max_positions / rope.low_freq_factor;
  const double high = rope.original_max_positions / rope.high_freq_factor;
  const double stretched = frequency / rope.factor;
  if (wavelength > low) return static_cast<float>(stretched);
  if (wavelength < high) return frequency;
  const double blend = (rope.original_max_positions / wavelength - rope.low_freq_factor) /
                       (rope.high_freq_factor - rope.low_freq_factor);
  return static_cast<float>((1.0 - blend) * stretched + blend * frequency);
}

/// The share of pair `i` that is stretched (_compute_yarn_parameters): 0 for waves that turn beta_fast times
/// and more over the original context, 1 for those that turn beta_slow times and less.
double yarn_share(const RopeDescription& rope, std::int64_t i) {
  const auto dims = static_cast<double>(rope.dims);
  const auto pair_of = [&](double turns) {
    return dims * std::log(rope.original_max_positions / (turns * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(rope.theta));
  };
  double low = pair_of(rope.beta_fast);
  double high = pair_of(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1.0);
  if (low == high) high += 0.001;
  return std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
}

}  // namespace

std::vector<float> rope_frequencies(const RopeDescription& rope, bool longer) {
  const std::vector<double>& factors = longer ? rope.long_factors : rope.short_factors;
  if (rope.scaling == RopeScaling::longrope && std::ssize(factors) != rope.dims / 2)
    throw Error("longrope has {} factors for {} pairs", factors.size(), rope.dims / 2);
  std::vector<float> frequencies;
  for (std::int64_t i = 0; i < rope.dims / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rope.dims);
    const auto wave = static_cast<float>(std::pow(rope.theta, static_cast<double>(exponent)));
    float frequency = 1.0f / wave;
    switch (rope.scaling) {
      case RopeScaling::none:
        break;
      case RopeScaling::linear:
        frequency /= static_cast<float>(rope.factor);
        break;
      case RopeScaling::llama3:
        frequency = stretched_as_llama3(rope, frequency);
        break;
      case RopeScaling::yarn: {
        const double share = yarn_share(rope, i);
        frequency = static_cast<float>(share * frequency / rope.factor + (1.0 - share) * frequency);
        break;
      }
      case RopeScaling::longrope:
        frequency = 1.0f / (static_cast<float>(factors[static_cast<std::size_t>(i)]) * wave);
        break;
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

std::int64_t first_rope_row(const RopeDescription& rope, std::int64_t length) {
  return rope.turns_long_ones_apart(length) ? static_cast<std::int64_t>(rope.original_max_positions) : 0;
}

std::int64_t rope_rows(const RopeDescription& rope, std::int64_t longest) {
  return first_rope_row(rope, longest) + longest;
}

RopeTables rope_tables(const RopeDescription& rope, std::int64_t longest) {
  RopeTables tables;
  const auto factor = static_cast<float>(rope.attention_factor);
  const auto append = [&](bool longer, std::int64_t positions) {
    const std::vector<float> frequencies = rope_frequencies(rope, longer);
    for (std::int64_t position = 0; position < positions; ++position) {
      for (const float frequency : frequencies) {
        const auto angle = static_cast<double>(static_cast<float>(position) * frequency);
        tables.cosines.push_back(factor * static_cast<float>(std::cos(angle)));
        tables.sines.push_back(factor * static_cast<float>(std::sin(angle)));
      }
    }
  };
  const std::int64_t apart = first_rope_row(rope, longest);
  if (apart > 0) append(false, apart);
  append(apart > 0, longest);
  return tables;
}

}  // namespace mezzo
