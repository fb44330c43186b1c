#pragma once
// Products whose tiles end in code of our own (tile_product.cuh): which cards run them, and how the head's
// logits are cut, for whoever makes room for their sums.
#include <cstdint>

namespace mezzo::cuda {

/// Whether a card of this compute capability runs head.h and gated.h.
inline bool tiles_run_on(int major, int minor) { return major == 9 && minor == 0; }

inline constexpr std::int64_t head_tile_columns = 256;
/// Rows that are done in one go: fewer cost as much.
inline constexpr std::int64_t head_tile_rows = 256;

inline std::int64_t head_column_tiles(std::int64_t vocabulary) {
  return (vocabulary + head_tile_columns - 1) / head_tile_columns;
}

/// Floats that a row's sums take: two a tile of columns.
inline std::int64_t head_sums(std::int64_t vocabulary) { return 2 * head_column_tiles(vocabulary); }

}  // namespace mezzo::cuda
