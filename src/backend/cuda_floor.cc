#include "backends.h"
#include "mezzo/core/error.h"

namespace mezzo {

std::unique_ptr<ProductFloor> make_cuda_floor(const BackendOptions&, std::span<const FloorProduct>) {
  throw DeviceError("device cuda: the floor cannot be measured yet");
}

}  // namespace mezzo
