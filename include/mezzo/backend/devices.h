#pragma once
// Which devices there are, and a backend on one of them.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mezzo/backend/backend.h"

namespace mezzo {

enum class DeviceKind : std::uint8_t { reference, cpu, cuda };
struct BackendOptions {
  DeviceKind device = DeviceKind::cpu;
  bool fp32 = false;       ///< cuda: fp32 weights and activations instead of bf16
  int threads = 1;         ///< cpu
  int device_index = 0;    ///< cuda: node-local rank
  std::string store = {};  ///< cuda: file where chosen algorithms are kept between processes; "": none
};
/// DeviceError when the kind is not built or no such device is there.
std::unique_ptr<Backend> make_backend(const BackendOptions& options);
/// The sizes of that backend alone, also of a kind that is not built or a device that is not there.
std::unique_ptr<DevicePlan> make_device_plan(const BackendOptions& options);
/// Whether a usable CUDA device is there (false in a build without CUDA); `reason` says why not.
bool cuda_available(std::string* reason);

struct CudaDevice {
  std::string name;
  std::string uuid;  ///< the card's own, whatever its number in this process
};
/// The devices that this process may use; their places are what BackendOptions::device_index counts. None in
/// a build without CUDA. DeviceError when the driver fails.
std::vector<CudaDevice> cuda_devices();

}  // namespace mezzo
