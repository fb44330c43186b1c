// The GEMM bound on a card: every product in bf16 by the fastest algorithm that cuBLASLt offers, split-K
// allowed.
#include <algorithm>
#include <optional>
#include <vector>

#include "backends.h"
#include "cuda_gemm.h"
#include "cuda_memory.h"
#include "kernels/cuda/rows.h"
#include "mezzo/backend/gemm_bound.h"

namespace mezzo {
namespace {

class CudaGemmBound final : public GemmBound {
 public:
  CudaGemmBound(const BackendOptions& options, std::span<const PlainProduct> products)
      : dtype_(options.fp32 ? DType::f32 : DType::bf16),
        stream_(make_stream()),
        gemm_(stream_.get(), allocate_on_card(Gemm::workspace_bytes), Gemm::Choice::any_bits, "") {
    std::int64_t most_x = 0, most_y = 0;  // elements
    for (const PlainProduct& product : products) {
      products_.push_back(aligned(product));
      const PlainProduct& p = products_.back();
      most_x = std::max(most_x, p.rows * p.in);
      most_y = std::max(most_y, p.rows * p.out);
    }
    const auto filled = [&](std::int64_t count) {
      Buffer buffer = allocate_on_card(static_cast<std::size_t>(count) * size_of(dtype_));
      MEZZO_CUDA(cuda::fill_normals(buffer.data(), dtype_, count, stream_.get()));
      return buffer;
    };
    for (const PlainProduct& p : products_) {
      if (gemm_.chosen(shape_of(p))) continue;
      const Buffer scratch = allocate_on_card(Gemm::search_bytes(shape_of(p), p.rows));
      gemm_.choose(shape_of(p), p.rows, scratch.data(), scratch.bytes());
    }
    // Each product reads a weight of its own, as in a model: none is left in the cache by the last one.
    for (const PlainProduct& p : products_) weights_.push_back(filled(p.out * p.in));
    x_ = filled(most_x);
    y_ = filled(most_y);
    MEZZO_CUDA(cudaStreamSynchronize(stream_.get()));
  }

  void run() override {
    for (std::size_t i = 0; i < products_.size(); ++i) {
      const PlainProduct& p = products_[i];
      gemm_.run(shape_of(p), {.weight = weights_[i].data(),
                              .weight_stride = p.in,
                              .x = x_.data(),
                              .x_stride = p.in,
                              .rows = p.rows,
                              .y = y_.data(),
                              .y_stride = p.out});
    }
    MEZZO_CUDA(cudaStreamSynchronize(stream_.get()));
  }

  std::optional<int> fewest_candidates() const override { return gemm_.fewest_candidates(); }

 private:
  /// Rows in whole 16 bytes, as the library wants them at full speed.
  static PlainProduct aligned(const PlainProduct& p) {
    const auto up = [](std::int64_t count) {
      return (count + unit_columns - 1) / unit_columns * unit_columns;
    };
    return {.rows = p.rows, .out = up(p.out), .in = up(p.in)};
  }
  GemmShape shape_of(const PlainProduct& p) const {
    return {.n = p.out, .k = p.in, .in = dtype_, .out = dtype_};
  }

  DType dtype_;
  Stream stream_;
  Gemm gemm_;
  std::vector<PlainProduct> products_;
  std::vector<Buffer> weights_;
  Buffer x_, y_;
};

}  // namespace

std::unique_ptr<GemmBound> make_cuda_gemm_bound(const BackendOptions& options,
                                                std::span<const PlainProduct> products) {
  MEZZO_CUDA(cudaSetDevice(options.device_index));
  return std::make_unique<CudaGemmBound>(options, products);
}

}  // namespace mezzo
