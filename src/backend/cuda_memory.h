#pragma once
// Memory and streams of the current card, for the backend and the GEMM bound.
#include <string>

#include "cuda_check.h"
#include "mezzo/backend/buffer.h"

namespace mezzo {

std::string describe(const cudaDeviceProp& card);  ///< for people: name and size
/// `bytes` of the card's memory, contents undefined. DeviceError with what was asked for and what is free.
Buffer allocate_on_card(std::size_t bytes);
std::size_t free_on_card();
Stream make_stream();

}  // namespace mezzo
