#pragma once
// What the factory chooses from; each function lives in a file of its own. A build without CUDA links
// cuda_absent.cc, which defines make_cuda_backend, make_cuda_floor, cuda_runs_tiles, cuda_available and
// cuda_devices (backend.h) to say so.
#include <memory>

#include "mezzo/backend/backend.h"
#include "mezzo/backend/floor.h"

namespace mezzo {

std::unique_ptr<Backend> make_reference_backend();
std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options);
std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options);

/// Whether card `index` is there and is one for kernels/cuda/tiles.h.
bool cuda_runs_tiles(int index);

std::unique_ptr<ProductFloor> make_cpu_floor(const BackendOptions& options,
                                             std::span<const FloorProduct> products);
std::unique_ptr<ProductFloor> make_cuda_floor(const BackendOptions& options,
                                              std::span<const FloorProduct> products);

}  // namespace mezzo
