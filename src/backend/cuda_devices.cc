#include <cuda_runtime.h>

#include "cuda_check.h"
#include "mezzo/backend/devices.h"

namespace mezzo {

std::vector<CudaDevice> cuda_devices() {
  int count = 0;
  MEZZO_CUDA(cudaGetDeviceCount(&count));
  std::vector<CudaDevice> devices;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp card{};
    MEZZO_CUDA(cudaGetDeviceProperties(&card, index));
    std::string uuid = "GPU-";
    for (std::size_t i = 0; i < sizeof(card.uuid.bytes); ++i) {
      if (i == 4 || i == 6 || i == 8 || i == 10) uuid += '-';
      uuid += fmt::format("{:02x}", static_cast<unsigned char>(card.uuid.bytes[i]));
    }
    devices.push_back({card.name, uuid});
  }
  return devices;
}

}  // namespace mezzo
