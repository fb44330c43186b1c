#include "kernels/cpu/blas.h"

#include <cblas.h>

namespace mezzo::cpu {

void use_one_blas_thread() { openblas_set_num_threads(1); }

std::string blas_version() { return openblas_get_config(); }

std::string blas_core() { return openblas_get_corename(); }

}  // namespace mezzo::cpu
