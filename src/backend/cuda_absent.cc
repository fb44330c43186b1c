// Linked in place of the cuda backend in a build without CUDA.
#include "backends.h"
#include "mezzo/core/error.h"

namespace mezzo {
namespace {

constexpr const char* absent = "this build of mezzo has no CUDA";

[[noreturn]] void refuse() {
  throw DeviceError(
      "device cuda: {}; use device cpu, or configure with -DMEZZO_CUDA=ON where a CUDA toolkit is", absent);
}

}  // namespace

bool cuda_available(std::string* reason) {
  if (reason != nullptr) *reason = absent;
  return false;
}

bool cuda_runs_tiles(int) { return false; }
std::vector<CudaDevice> cuda_devices() { return {}; }

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions&) { refuse(); }

std::unique_ptr<GemmBound> make_cuda_gemm_bound(const BackendOptions&, std::span<const PlainProduct>) {
  refuse();
}

}  // namespace mezzo
