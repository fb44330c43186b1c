#pragma once
#include <string>

namespace mezzo::cpu {

/// Has OpenBLAS work in the calling thread alone: the caller spreads its own work over threads. OpenBLAS
/// keeps this setting for the whole process.
void use_one_blas_thread();

std::string blas_version();  ///< version and build options, as OpenBLAS states them
std::string blas_core();     ///< the set of kernels in use: the processor's, or OPENBLAS_CORETYPE's

}  // namespace mezzo::cpu
