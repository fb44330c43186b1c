#pragma once
// How the head's logits are cut into tiles, for the kernels (head.h) and for whoever makes room for them.
#include <cstdint>

namespace mezzo::cuda {

inline constexpr std::int64_t head_tile_columns = 256;
/// Rows that are done in one go: fewer cost as much.
inline constexpr std::int64_t head_tile_rows = 256;

inline std::int64_t head_column_tiles(std::int64_t vocabulary) {
  return (vocabulary + head_tile_columns - 1) / head_tile_columns;
}

/// Floats that a row's sums take: two a tile of columns.
inline std::int64_t head_sums(std::int64_t vocabulary) { return 2 * head_column_tiles(vocabulary); }

}  // namespace mezzo::cuda
