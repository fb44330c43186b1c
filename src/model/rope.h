#pragma once
#include <cstdint>
#include <vector>

#include "mezzo/model/description.h"

namespace mezzo {

// A sequence's angles depend on its own length alone (docs/decisions/rope-scalings.md). Where two lengths
// have different angles for one position, the tables hold one behind the other:
//
//     rows [0, original_max_positions)           positions of sequences of up to so many tokens
//     rows from original_max_positions on        positions of longer sequences, from 0

/// Rotary angles: what Rope holds, on the host.
struct RopeTables {
  std::vector<float> cosines;  ///< [rows, dims / 2]
  std::vector<float> sines;    ///< [rows, dims / 2]
};

/// Turns a position, of each of dims / 2 pairs, by the angle p * frequency: transformers' inv_freq. Of
/// sequences longer than original_max_positions, or of others.
std::vector<float> rope_frequencies(const RopeDescription& rope, bool longer = false);

/// Rows of the tables for sequences of up to `longest` tokens.
std::int64_t rope_rows(const RopeDescription& rope, std::int64_t longest);
/// The row of position 0 of a sequence of `length` tokens.
std::int64_t first_rope_row(const RopeDescription& rope, std::int64_t length);

/// The tables, rounded to fp32 in the places where transformers does so.
RopeTables rope_tables(const RopeDescription& rope, std::int64_t longest);

}  // namespace mezzo
