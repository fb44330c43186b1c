#include "cpu_plan.h"

#include "kernels/cpu/attention.h"
#include "kernels/cpu/partition.h"

namespace mezzo {
namespace {

using cpu::Partition;

/// Floats that the perturbed factors take a probe: every A, one below the other, then every B.
std::int64_t tail_floats(const Product& product) {
  std::int64_t floats = product.tail_ranks() * product.in();
  for (const ProductPart& part : product.parts) floats += part.rows * part.tail_rank();
  return floats;
}

}  // namespace

CpuSizes cpu_sizes_of(const Workload& workload) {
  const std::int64_t tokens = workload.largest.tokens;
  const std::int64_t loss_rows = std::min(workload.largest.loss_rows, block_rows);
  CpuSizes sizes;
  std::int64_t widest = 1;
  for (const PlannedProduct& planned : workload.products) {
    const Product& product = *planned.product;
    sizes.factors = std::max(sizes.factors, tail_floats(product));
    sizes.ranks = std::max(sizes.ranks, product.tail_ranks());
    widest = std::max(widest, product.out());
  }
  const std::int64_t rows = std::min(std::max(tokens, loss_rows), block_rows);
  const std::int64_t attend =
      cpu::attend_scratch(workload.largest.longest, workload.attention.head_dim) + workload.largest.longest;
  sizes.tile = std::max(attend, std::min(tile_floats, rows * widest));
  if (workload.largest.cache) {
    for (const PlannedProduct& planned : workload.products) {
      if (planned.scored) sizes.tile = std::max(sizes.tile, loss_rows * planned.product->out());
    }
  }
  sizes.chunks = Partition(widest, head_columns).parts();
  sizes.probes = workload.probes;
  sizes.loss_rows = loss_rows;
  sizes.probe_rows = workload.probes * std::max(tokens, loss_rows);
  sizes.probe_loss_rows = workload.probes * loss_rows;
  return sizes;
}

CpuScratch lay_out(const CpuSizes& sizes, int threads, Arena& arena) {
  CpuScratch scratch;
  scratch.tiles = arena.take(DType::f32, 0, threads, sizes.tile, sizes.tile);
  scratch.factors = arena.take(DType::f32, 0, sizes.probes, sizes.factors, sizes.factors);
  scratch.s = arena.take(DType::f32, 0, sizes.probe_rows, sizes.ranks, sizes.ranks);
  scratch.sums = arena.take(DType::f32, 0, sizes.probe_loss_rows, 2 * sizes.chunks, 2 * sizes.chunks);
  scratch.totals = arena.take(DType::f64, 0, sizes.probes, sizes.loss_rows, sizes.loss_rows);
  return scratch;
}

}  // namespace mezzo
