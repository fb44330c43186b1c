#include "backends.h"
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

}  // namespace mezzo
