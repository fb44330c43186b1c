#pragma once
#include <cstdint>
#include <string>

namespace mezzo::cpu {

/// Has OpenBLAS work in the calling thread alone: the caller spreads its own work over threads. OpenBLAS
/// keeps this setting for the whole process.
void use_one_blas_thread();

/// y [rows, out] = x [rows, in] w^T, all dense, in one call over `threads` threads of OpenBLAS's own; then
/// one thread again. Which bits a row gets depends on its neighbours: for measurements, not for results.
void multiply(int threads, const float* x, const float* w, float* y, std::int64_t rows, std::int64_t out,
              std::int64_t in);

std::string blas_version();  ///< version and build options, as OpenBLAS states them
std::string blas_core();     ///< the set of kernels in use: the processor's, or OPENBLAS_CORETYPE's

}  // namespace mezzo::cpu
