#pragma once
#include "mezzo/backend/backend.h"

namespace mezzo {

/// A backend with the sizes of another device plan.
class BackendOver : public Backend {
 public:
  /// `sizes` must outlive it.
  explicit BackendOver(const DevicePlan& sizes) : sizes_(sizes) {}

  std::string name() const override { return sizes_.name(); }
  DType activation_dtype() const override { return sizes_.activation_dtype(); }
  DType residual_dtype() const override { return sizes_.residual_dtype(); }
  bool serves(const Perturbation& perturbation) const override { return sizes_.serves(perturbation); }
  bool serves(const Weight& weight) const override { return sizes_.serves(weight); }
  std::int64_t input_stride(const Product& product) const override { return sizes_.input_stride(product); }
  Weight place_weight(std::int64_t out, std::int64_t in, std::int64_t tail_ranks) const override {
    return sizes_.place_weight(out, in, tail_ranks);
  }
  std::size_t scratch_bytes(const Workload& workload) const override {
    return sizes_.scratch_bytes(workload);
  }

 private:
  const DevicePlan& sizes_;
};

}  // namespace mezzo
