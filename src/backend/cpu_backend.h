#pragma once
// fp32 on the host's cores: OpenBLAS for products, kernels/cpu for the rest, OpenMP over pieces of work that
// are cut by shapes alone. A piece's result depends on its operands and its shape, so that a probe's loss is
// batch-invariant and has the same bits on any number of threads (docs/decisions/0001-row-blocks.md).
#include <omp.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "cpu_plan.h"
#include "host_backend.h"
#include "kernels/cpu/blas.h"

namespace mezzo {

class CpuBackend final : public HostBackend {
 public:
  explicit CpuBackend(int threads) : threads_(threads) { cpu::use_one_blas_thread(); }

  std::string name() const override { return "cpu"; }
  std::string device() const override;
  std::map<std::string, std::string> fingerprint() const override;
  std::size_t scratch_bytes(const Workload& workload) const override;
  void prepare(const Workload& workload) override;
  void fill_normal(View destination, std::uint64_t seed, float scale) override;
  void perturb(const ProbeTable& table, std::int64_t first, std::int64_t count, const DenseNoise& noise,
               float offset, View destination) override;

  // ---- the forward: cpu_forward.cc, product() in cpu_products.cc
  void embed(const ProbeTable& table, const DeviceBatch& batch, View words, View places,
             std::int64_t position_offset, View h) override;
  void residual_norm(const ProbeTable& table, View h_in, std::span<const View> deltas, View h_out,
                     const Norm& norm, View x) override;
  void product(const ProbeTable& table, const Product& product, std::size_t first_part, View x,
               std::span<const View> y, Epilogue epilogue) override;
  void scale(const ProbeTable& table, float factor, View h) override;
  void norm_heads(const ProbeTable& table, const Norm& norm, std::int64_t head_dim, View x) override;
  void soft_cap(const ProbeTable& table, float cap, View x) override;
  void gate(const ProbeTable& table, Activation activation, View gate_up,
            View y) override;  // cpu_products.cc
  // mixtures: cpu_mixture.cc, expert_product() in cpu_products.cc
  void route(const ProbeTable& table, View logits, const Routing& routing) override;
  void dispatch(const ProbeTable& table, const Routing& routing, View x, View out) override;
  void expert_product(const ProbeTable& table, std::span<const Product* const> experts,
                      const Routing& routing, View x, View y, Epilogue epilogue) override;
  void combine(const ProbeTable& table, const Routing& routing, View x, View out) override;
  void rotate(const ProbeTable& table, const DeviceBatch& batch, const Rope& rope, View row_index,
              std::int64_t head_dim, View x) override;
  void attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                 const Rope* rope, View q, View k, View v, View query_rows, View out) override;
  void keep_apart(std::span<const std::int32_t> offsets) override {
    apart_.assign(offsets.begin(), offsets.end());
  }
  void decode_attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                        const Rope* rope, View q, View k, View v, const LayerCache& cache, View out) override;
  void next_tokens(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
                   const Sampling& sampling, View out) override;
  void gather(const ProbeTable& table, View x, View rows, View out) override;
  void split_heads(const ProbeTable& table, const AttentionShape& shape, View x, View out) override;
  void score(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
             View out) override;

  // ---- the update
  void update(Trainables& trainables, Trainables& state, const UpdateStep& step, NoiseKind noise) override;
  std::uint64_t hash(const Trainables& trainables) override;

 private:
  static constexpr std::int64_t light_rows = 32;  // rows of one piece of elementwise work

  struct PerturbedPart;
  struct Tails;

  // ---- work over threads

  /// f(item, thread) for every item, in any order.
  template <typename F>
  void parallel(std::int64_t items, F f) const {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads_) if (items > 1)
    for (std::int64_t item = 0; item < items; ++item) f(item, omp_get_thread_num());
  }

  /// f(p, row) for every row of every copy.
  template <typename F>
  void for_rows(std::int64_t copies, std::int64_t rows, F f) const {
    const std::int64_t all = copies * rows;
    parallel((all + light_rows - 1) / light_rows, [&](std::int64_t piece, int) {
      const std::int64_t end = std::min((piece + 1) * light_rows, all);
      for (std::int64_t i = piece * light_rows; i < end; ++i) f(i / rows, i % rows);
    });
  }

  // ---- scratch

  static void check_scratch(const char* operation, const char* what, std::int64_t room, std::int64_t needed);
  float* tile(int thread) const { return scratch_.tiles.as<float>() + thread * scratch_.tiles.row_stride; }

  // ---- products: cpu_products.cc

  /// Rows of one probe that go through one call.
  struct RowBlock {
    std::int64_t probe = 0;
    std::int64_t first = 0;  // of x and y
    std::int64_t rows = 0;
    std::int64_t s_first = 0;  // of the probe's s
  };
  /// All blocks of rows of a product, probe by probe. Where x is shared, they are cut alike for every probe.
  struct RowBlocks {
    std::vector<RowBlock> all;
    std::size_t of_first_probe = 0;
    std::int64_t most_rows = 0;   // of a block
    std::int64_t probe_rows = 0;  // of s

    /// Rows [begin, begin + rows) of the last probe or the next, in even blocks; of its s from `s_begin` on.
    void add(std::int64_t probe, std::int64_t begin, std::int64_t rows, std::int64_t s_begin);
    /// Of what is computed never (0 copies), once, or for each probe.
    std::span<const RowBlock> of(std::int64_t copies) const {
      if (copies == 0) return {};
      return copies == 1 ? std::span(all).first(of_first_probe) : std::span(all);
    }
  };

  /// All rows of the next probe, those that keep_apart() names in blocks of their own.
  void add_rows(RowBlocks& blocks, std::int64_t probe, std::int64_t rows) const;
  /// The outputs of a product over blocks of rows.
  void multiply(const ProbeTable& table, const Product& product, const std::vector<ProductOutput>& outputs,
                View x, const RowBlocks& blocks, Epilogue epilogue);
  /// Perturbs the factors of the parts that `outputs` hold, for every probe, and computes s = A x.
  Tails make_tails(const ProbeTable& table, const Product& product, const std::vector<ProductOutput>& outputs,
                   View x, const RowBlocks& blocks);
  static void check_factor(const ProductPart& part, const char* factor, const View& view, std::int64_t rows,
                           std::int64_t cols);
  /// A + sigma epsilon Z_A and B + sigma epsilon Z_B in fp32 for every probe. Probes of one direction stand
  /// in one piece of work, so that its noise is made once.
  void perturb_factors(const ProbeTable& table, const Product& product, const Tails& tails);
  float* factors(const Tails& tails, std::int64_t p) const;
  Rows<float> s_rows(const Tails& tails, std::int64_t p, std::int64_t row) const;
  /// y += tails of probe p, where y holds weight rows [begin, end) of the block's rows.
  void add_tails(const Tails& tails, std::int64_t p, const RowBlock& block, std::int64_t begin,
                 std::int64_t end, Rows<float> y) const;
  /// y = activation(W x + bias + tails). Where the probes share x but not y, W x is computed once and copied.
  void plain(const ProbeTable& table, const Product& product, const ProductOutput& output, View x,
             const RowBlocks& blocks, const Tails& tails, Activation activation) const;
  /// y = activation(gate) * up, of two parts that lie one below the other in the weight. Their products stay
  /// in a tile: memory sees x and y.
  void gated(const ProbeTable& table, const Product& product, const ProductOutput& output, View x,
             const RowBlocks& blocks, const Tails& tails, Activation activation) const;

  int threads_;
  std::vector<std::int32_t> apart_;  // of keep_apart()
  CpuSizes sizes_;
  Arena memory_;
  CpuScratch scratch_;
};

}  // namespace mezzo
