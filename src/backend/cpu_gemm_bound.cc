// GEMM bound on the host: OpenBLAS over all threads, one call a product.
#include <algorithm>
#include <random>
#include <vector>

#include "backends.h"
#include "kernels/cpu/blas.h"

namespace mezzo {
namespace {

class CpuGemmBound final : public GemmBound {
 public:
  CpuGemmBound(int threads, std::span<const PlainProduct> products)
      : threads_(threads), products_(products.begin(), products.end()) {
    std::int64_t x = 0;
    std::int64_t w = 0;
    std::int64_t y = 0;
    for (const PlainProduct& product : products_) {
      x = std::max(x, product.rows * product.in);
      w = std::max(w, product.out * product.in);
      y = std::max(y, product.rows * product.out);
    }
    std::mt19937 random(1);
    x_ = numbers(x, random);
    w_ = numbers(w, random);
    y_.resize(static_cast<std::size_t>(y));
  }

  void run() override {
    for (const PlainProduct& product : products_) {
      cpu::multiply(threads_, x_.data(), w_.data(), y_.data(), product.rows, product.out, product.in);
    }
  }

 private:
  /// Uniform on [-1/2, 1/2].
  static std::vector<float> numbers(std::int64_t count, std::mt19937& random) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = static_cast<float>(random()) * 0x1p-32f - 0.5f;
    return values;
  }

  int threads_;
  std::vector<PlainProduct> products_;
  std::vector<float> x_, w_, y_;  // each as large as the largest product's
};

}  // namespace

std::unique_ptr<GemmBound> make_cpu_gemm_bound(const BackendOptions& options,
                                               std::span<const PlainProduct> products) {
  return std::make_unique<CpuGemmBound>(options.threads, products);
}

}  // namespace mezzo
