#pragma once
// What the factory chooses from; each function lives in a file of its own. A build without CUDA links
// cuda_absent.cc, which defines make_cuda_backend and cuda_available (backend.h) to say so.
#include <memory>

#include "mezzo/backend/backend.h"

namespace mezzo {

std::unique_ptr<Backend> make_reference_backend();
std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options);
std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options);

}  // namespace mezzo
