#include "rope.h"

#include <cmath>
#include <numbers>

namespace mezzo {
namespace {

/// Rotary frequencies as transformers computes them: every step rounded to fp32 where it does so.
std::vector<float> rope_frequencies(const RopeDescription& rope) {
  std::vector<float> frequencies;
  for (std::int64_t i = 0; i < rope.dims; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(rope.dims);
    float frequency = 1.0f / static_cast<float>(std::pow(rope.theta, static_cast<double>(exponent)));
    if (rope.llama3_scaling) {
      // transformers' modeling_rope_utils, _compute_llama3_parameters: long waves are stretched by `factor`,
      // short ones kept, those between blended.
      const double wavelength = 2.0 * std::numbers::pi / frequency;
      const double low = rope.original_max_positions / rope.low_freq_factor;
      const double high = rope.original_max_positions / rope.high_freq_factor;
      const double stretched = frequency / rope.factor;
      if (wavelength > low) {
        frequency = static_cast<float>(stretched);
      } else if (wavelength >= high) {
        const double blend = (rope.original_max_positions / wavelength - rope.low_freq_factor) /
                             (rope.high_freq_factor - rope.low_freq_factor);
        frequency = static_cast<float>((1.0 - blend) * stretched + blend * frequency);
      }
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

}  // namespace

RopeTables rope_tables(const RopeDescription& rope, std::int64_t positions) {
  const std::vector<float> frequencies = rope_frequencies(rope);
  RopeTables tables;
  tables.cosines.resize(static_cast<std::size_t>(positions) * frequencies.size());
  tables.sines.resize(tables.cosines.size());
  for (std::size_t i = 0; i < tables.cosines.size(); ++i) {
    const float angle = static_cast<float>(i / frequencies.size()) * frequencies[i % frequencies.size()];
    tables.cosines[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
    tables.sines[i] = static_cast<float>(std::sin(static_cast<double>(angle)));
  }
  return tables;
}

}  // namespace mezzo
