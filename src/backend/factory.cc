#include "backends.h"
#include "cuda_plan.h"
#include "mezzo/core/error.h"

namespace mezzo {

std::unique_ptr<Backend> make_backend(const BackendOptions& options) {
  switch (options.device) {
    case DeviceKind::reference:
      return make_reference_backend();
    case DeviceKind::cpu:
      return make_cpu_backend(options);
    case DeviceKind::cuda:
      return make_cuda_backend(options);
  }
  throw DeviceError("unknown device kind {}", static_cast<int>(options.device));
}

std::unique_ptr<DevicePlan> make_device_plan(const BackendOptions& options) {
  if (options.device == DeviceKind::cuda)
    return std::make_unique<CudaPlan>(options.fp32, cuda_runs_tiles(options.device_index));
  return make_backend(options);  // the host is always there
}

std::unique_ptr<GemmBound> make_gemm_bound(const BackendOptions& options,
                                           std::span<const PlainProduct> products) {
  if (options.device == DeviceKind::cuda) return make_cuda_gemm_bound(options, products);
  return make_cpu_gemm_bound(options, products);
}

}  // namespace mezzo
