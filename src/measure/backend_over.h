#pragma once
#include "mezzo/backend/backend.h"

namespace mezzo {

/// A backend with the sizes of another device plan.
class BackendOver : public Backend {
 public:
  /// `sizes` must outlive it.
  explicit BackendOver(const DevicePlan& sizes) : sizes_(sizes) {}

  std::string name() const override { return sizes_.name(); }
  DType weight_dtype() const override { return sizes_.weight_dtype(); }
  DType activation_dtype() const override { return sizes_.activation_dtype(); }
  DType residual_dtype() const override { return sizes_.residual_dtype(); }
  bool serves(const Perturbation& perturbation) const override { return sizes_.serves(perturbation); }
  std::int64_t input_stride(const Product& product) const override { return sizes_.input_stride(product); }
  std::int64_t weight_stride(std::int64_t in, std::int64_t tail_ranks) const override {
    return sizes_.weight_stride(in, tail_ranks);
  }
  std::int64_t weight_rows(std::int64_t rows) const override { return sizes_.weight_rows(rows); }
  std::size_t scratch_bytes(const Workload& workload) const override {
    return sizes_.scratch_bytes(workload);
  }

 private:
  const DevicePlan& sizes_;
};

}  // namespace mezzo
