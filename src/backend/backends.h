#pragma once
// What the factory chooses from; each function lives in a file of its own. A build without CUDA links
// cuda_absent.cc, which defines make_cuda_backend, make_cuda_gemm_bound, cuda_runs_tiles, cuda_available and
// cuda_devices (devices.h) to say so.
#include <memory>

#include "mezzo/backend/devices.h"
#include "mezzo/backend/gemm_bound.h"

namespace mezzo {

std::unique_ptr<Backend> make_reference_backend();
std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options);
std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options);

/// Whether card `index` is there and is one for kernels/cuda/tiles.h.
bool cuda_runs_tiles(int index);

std::unique_ptr<GemmBound> make_cpu_gemm_bound(const BackendOptions& options,
                                               std::span<const PlainProduct> products);
std::unique_ptr<GemmBound> make_cuda_gemm_bound(const BackendOptions& options,
                                                std::span<const PlainProduct> products);

}  // namespace mezzo
