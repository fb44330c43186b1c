#pragma once
// The CUDA backend: one card, one stream. Weights and activations in bf16 (or fp32), everything that is
// summed, normalised or perturbed in fp32; the residual stream in fp32.
//
// A product in bf16 is one by cuBLASLt (cuda_gemm.h) straight into y, bias and GELU included; low-rank terms
// ride on it as further columns of x and W (kernels/cuda/low_rank.h), other activations follow apart. What
// that cannot serve (fp32, odd sizes, tails over an x that all probes share) goes the plain way: W x into
// fp32 scratch, a range of rows at a time, from where `finish` adds bias and tails, applies the activation
// and rounds once. If the card can do that, gate and up are multiplied (kernels/cuda/gated.h) and the head's
// logits summed (kernels/cuda/head.h) where they arise.
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cuda_check.h"
#include "cuda_gemm.h"
#include "cuda_memory.h"
#include "cuda_plan.h"
#include "host_backend.h"
#include "kernels/cuda/activation.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/low_rank.h"
#include "kernels/cuda/routing.h"
#include "kernels/cuda/score.h"
#include "kernels/cuda/tail.h"
#include "kernels/cuda/update.h"
#include "mezzo/backend/devices.h"

namespace mezzo {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const BackendOptions& options);

  std::string name() const override { return plan_.name(); }
  DType activation_dtype() const override { return plan_.activation_dtype(); }
  DType residual_dtype() const override { return plan_.residual_dtype(); }
  bool serves(const Perturbation& perturbation) const override { return plan_.serves(perturbation); }
  bool serves(const Weight& weight) const override { return plan_.serves(weight); }
  bool serves(const RoutingRule& rule) const override { return plan_.serves(rule); }
  bool gathers_rows(const Product& expert, const Epilogue& epilogue) const override {
    return plan_.gathers_rows(expert, epilogue);
  }
  std::int64_t input_stride(const Product& product) const override { return plan_.input_stride(product); }
  Weight place_weight(std::int64_t out, std::int64_t in, std::int64_t tail_ranks) const override {
    return plan_.place_weight(out, in, tail_ranks);
  }
  std::size_t scratch_bytes(const Workload& workload) const override { return plan_.scratch_bytes(workload); }
  std::string device() const override;
  std::map<std::string, std::string> fingerprint() const override;
  void keep(const std::map<std::string, std::string>& fingerprint) override;
  std::size_t memory_available() const override;
  void choose(const Workload& workload) override;
  void prepare(const Workload& workload) override;

  // ---- memory
  Buffer allocate(std::size_t bytes) override;
  void load(View destination, DType source_dtype, const void* source, bool transposed) override;
  void assign(View destination, View source) override;
  void fill_normal(View destination, std::uint64_t seed, float scale) override;
  void perturb(const ProbeTable& table, std::int64_t first, std::int64_t count, const DenseNoise& noise,
               float offset, View destination) override;
  void read(std::span<float> destination, View source, std::int64_t probes) override;
  void read(std::span<std::int32_t> destination, View source, std::int64_t probes) override;
  void upload(const PackedBatch& batch, DeviceBatch& destination) override;
  void upload(std::span<const Probe> probes, NoiseKind noise, ProbeTable& destination) override;
  void* native_stream() const override { return stream(); }
  void synchronize() override;

  // ---- the forward: cuda_forward.cc, product() in cuda_products.cc
  void embed(const ProbeTable& table, const DeviceBatch& batch, View words, View places,
             std::int64_t position_offset, View h) override;
  void residual_norm(const ProbeTable& table, View h_in, std::span<const View> deltas, View h_out,
                     const Norm& norm, View x) override;
  void product(const ProbeTable& table, const Product& product, std::size_t first_part, View x,
               std::span<const View> y, Epilogue epilogue) override;
  void rotate(const ProbeTable& table, const DeviceBatch& batch, const Rope& rope, View row_index,
              std::int64_t head_dim, View x) override;
  void attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                 const Rope* rope, View q, View k, View v, View query_rows, View out) override;
  void store(const ProbeTable& table, const DeviceBatch& batch, View k, View v, const KeyValues& to) override;
  void decode_attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                        const Rope* rope, View q, View k, View v, const LayerCache& cache, View out) override;
  void next_tokens(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
                   const Sampling& sampling, View out) override;
  void gather(const ProbeTable& table, View x, View rows, View out) override;
  void norm_heads(const ProbeTable& table, const Norm& norm, std::int64_t head_dim, View x) override;
  void scale(const ProbeTable& table, float factor, View h) override;
  void soft_cap(const ProbeTable& table, float cap, View x) override;
  void gate(const ProbeTable& table, Activation activation, View gate_up, View y) override;
  void split_heads(const ProbeTable& table, const AttentionShape& shape, View x, View out) override;
  void score(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
             View out) override;

  // ---- mixtures of experts: cuda_mixture.cc
  void route(const ProbeTable& table, View logits, const Routing& routing) override;
  void dispatch(const ProbeTable& table, const Routing& routing, View x, View out) override;
  void expert_product(const ProbeTable& table, std::span<const Product* const> experts,
                      const Routing& routing, View x, View y, Epilogue epilogue) override;
  void dispatch_product(const ProbeTable& table, std::span<const Product* const> experts,
                        const Routing& routing, View x, View y, Epilogue epilogue) override;
  void combine(const ProbeTable& table, const Routing& routing, View x, View out) override;

  /// What comes a third time is captured as a graph: launches of small kernels take longer than they do.
  void repeat(std::span<const std::uint64_t> key, const std::function<void()>& enqueue) override;

  // ---- the update
  void update(Trainables& trainables, Trainables& state, const UpdateStep& step, NoiseKind noise) override;
  std::uint64_t hash(const Trainables& trainables) override;

 private:
  /// The last key of repeat() and what became of it.
  struct Repeated {
    std::vector<std::uint64_t> key;
    int times = 0;
    GraphExec graph;  // null until captured
  };
  static constexpr int repeats_before_graph = 3;

  cudaStream_t stream() const { return stream_.get(); }
  std::uint32_t* fault() const { return static_cast<std::uint32_t*>(fault_.data()); }
  void grow(Buffer& buffer, std::size_t bytes);
  /// Host memory to the start of `buffer`, which grows as needed. `source` has been read on return.
  void copy_to(Buffer& buffer, const void* source, std::size_t bytes);

  // ---- scratch
  static void check_scratch(const char* operation, const char* what, const View& prepared,
                            std::int64_t needed);
  /// How many rows of `stride` floats the accumulators take at a time, of `rows` in all.
  std::int64_t range_rows(const char* operation, std::int64_t stride, std::int64_t rows) const;

  // ---- products: cuda_products.cc
  void direct_product(const ProbeTable& table, const Product& product, const ProductRange& range,
                      const GemmShape& shape, const View& x, const View& y, Activation activation);
  /// `columns` of x and W count, tails included.
  void fused_product(const ProbeTable& table, const Product& product, const ProductRange& range,
                     std::int64_t columns, const View& x, const View& y, Activation activation);
  void gated_product(const ProbeTable& table, const Product& product, const ProductRange& range,
                     const GemmShape& shape, const View& x, const View& y, Activation activation);
  void plain_product(const ProbeTable& table, const Product& product, const ProductRange& range,
                     const GemmShape& shape, const View& x, const std::vector<ProductOutput>& outputs,
                     const Epilogue& epilogue);
  const std::byte* weight_of(const Product& product, const ProductRange& range) const;
  void check_input(const char* operation, const Product& product, const View& x) const;
  /// The algorithm for `shape`, if there is none yet. A run has chosen all of them in prepare().
  void choose_algorithm(const Product& product, const GemmShape& shape);
  /// Rows [first, first + count) of all copies of x, one copy after another, times the range's weight.
  void multiply(const Product& product, const ProductRange& range, const GemmShape& shape, const View& x,
                std::int64_t first, std::int64_t count, void* y, std::int64_t y_stride) const;
  /// The tails of parts [first, first + count), ranks counted through them; their rows from `row_begin` on.
  static cuda::LowRanks low_ranks(const Product& product, std::size_t first, std::size_t count,
                                  std::int64_t row_begin);
  /// Calls `each_range` for consecutive ranges of the rows of all copies, with s and the noise of a range's
  /// direction blocks in the columns behind x and W; without tails once, for all.
  void with_tails(const ProbeTable& table, const Product& product, const ProductRange& range, const View& x,
                  const std::function<void(std::int64_t first, std::int64_t count)>& each_range);
  /// Factors with their noise and s = A_p x, in scratch; whether there are tails at all.
  bool prepare_tails(const ProbeTable& table, const Product& product, const ProductRange& range,
                     const View& x);
  cuda::Column column_of(const Product& product, const ProductRange& range, std::size_t part) const;

  // ---- mixtures: cuda_mixture.cc
  /// The experts of a mixture in flight.
  struct ExpertsInFlight {
    std::span<const Product* const> experts;
    cuda::ExpertWeights weights;
    cuda::Routes routes;
    std::int64_t ranks = 0;  ///< of an expert's tails, where they are most
    Epilogue epilogue;
  };
  /// By tiles straight into y.
  void expert_tiles(const ProbeTable& table, const ExpertsInFlight& flight, const View& x, const View& y);
  /// W x of a range of places into fp32 scratch, then everything else.
  void expert_rows(const ProbeTable& table, const ExpertsInFlight& flight, const View& x, const View& y);
  void multiply_range(const ExpertsInFlight& flight, const cuda::ExpertRows& rows, std::int64_t y_stride);
  /// Calls `use` for the tails of all experts, as many at a time as a launch takes.
  static void each_tails(const ExpertsInFlight& flight,
                         const std::function<void(const cuda::ExpertTails& tails)>& use);

  // ---- attention and the head: cuda_forward.cc
  static cuda::Rotation rotation_of(const char* operation, const Rope& rope, std::int64_t head_dim);
  /// Sums over the logits of a range of rows, then answers; the logits themselves go nowhere.
  void score_by_sums(const ProbeTable& table, const DeviceBatch& batch, const Product& head, const View& x,
                     const View& out);
  /// Calls `use` for the logits of consecutive ranges of the rows of all copies, of `most_rows` at most.
  void each_logits(const char* operation, const ProbeTable& table, const Product& head, const View& x,
                   std::int64_t most_rows, const std::function<void(const cuda::Logits& logits)>& use);
  /// Logits of a range of rows, then their sums and answers.
  void score_by_logits(const ProbeTable& table, const DeviceBatch& batch, const Product& head, const View& x,
                       const View& out);

  /// The update's tables: both kinds of beginnings, then what the caller adds, in one copy to the device.
  cuda::TensorTable upload_tables(const Trainables& trainables,
                                  std::initializer_list<std::span<const std::byte>> more);

  DType dtype_;
  CudaPlan plan_;
  cudaDeviceProp card_{};
  Stream stream_;
  std::optional<Staging> host_staging_;
  Buffer fault_;          // one word of cuda::Fault
  Buffer staging_;        // of load and read
  Buffer tables_;         // of update and hash
  Buffer outer_factors_;  // of update
  std::optional<Gemm> gemm_;
  Repeated repeated_;
  std::int64_t direction_rows_ = 0;  // of a two-sided direction, in the first workload or in the record kept
  CudaSizes sizes_;
  Arena memory_;
  CudaScratch scratch_;
};

}  // namespace mezzo
