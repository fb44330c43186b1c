#pragma once
// How the cpu backend cuts work into pieces and what scratch that takes: arithmetic on shapes alone.
#include <algorithm>
#include <cstdint>

#include "mezzo/backend/arena.h"
#include "mezzo/backend/backend.h"

namespace mezzo {

inline constexpr std::int64_t block_rows = 256;  // most rows of one BLAS call
inline constexpr std::int64_t tile_floats =
    512 * 1024;  // a thread's tile: gate | up, or logits, of a block of rows
inline constexpr std::int64_t head_columns = 2048;  // most words of the vocabulary in one piece of the head

/// Columns that a tile of `rows` rows has room for.
inline std::int64_t tile_columns(std::int64_t rows) { return tile_floats / rows; }

/// What a workload needs of the scratch, in elements.
struct CpuSizes {
  std::int64_t tile = 0;  // a thread
  std::int64_t probes = 0;
  std::int64_t factors = 0;     // a probe
  std::int64_t probe_rows = 0;  // probes * rows
  std::int64_t ranks = 0;
  std::int64_t loss_rows = 0;        // rows of a block that are read
  std::int64_t probe_loss_rows = 0;  // probes * loss_rows
  std::int64_t chunks = 0;           // of the head's columns

  void grow_to(const CpuSizes& other) {
    tile = std::max(tile, other.tile);
    probes = std::max(probes, other.probes);
    factors = std::max(factors, other.factors);
    probe_rows = std::max(probe_rows, other.probe_rows);
    ranks = std::max(ranks, other.ranks);
    loss_rows = std::max(loss_rows, other.loss_rows);
    probe_loss_rows = std::max(probe_loss_rows, other.probe_loss_rows);
    chunks = std::max(chunks, other.chunks);
  }
};

/// The scratch of all workloads prepared for, taken from one arena.
struct CpuScratch {
  View tiles;    // [threads, tile]: gate | up of a block, logits of a block, an attention's keys
  View factors;  // [probes, floats]: perturbed A and B of the product in flight
  View s;        // [probes * rows, ranks]: A x of the product in flight
  View sums;     // [probes * rows of a block, chunks] of ExpSum, two floats each
  View totals;   // [probes, rows of a block] of the log of those sums
};

CpuSizes cpu_sizes_of(const Workload& workload);
CpuScratch lay_out(const CpuSizes& sizes, int threads, Arena& arena);

}  // namespace mezzo
