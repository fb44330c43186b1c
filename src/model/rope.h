#pragma once
#include <cstdint>
#include <vector>

#include "mezzo/model/description.h"

namespace mezzo {

/// Rotary angles of every position: what Rope holds, on the host.
struct RopeTables {
  std::vector<float> cosines;  ///< [positions, dims / 2]
  std::vector<float> sines;    ///< [positions, dims / 2]
};

/// Turns a position, of each of dims / 2 pairs, by the angle p * frequency: transformers' inv_freq.
std::vector<float> rope_frequencies(const RopeDescription& rope);

/// The tables of positions [0, positions), rounded to fp32 in the places where transformers does so.
RopeTables rope_tables(const RopeDescription& rope, std::int64_t positions);

}  // namespace mezzo
