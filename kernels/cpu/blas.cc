#include "kernels/cpu/blas.h"

#include <cblas.h>

namespace mezzo::cpu {

void use_one_blas_thread() { openblas_set_num_threads(1); }

void multiply(int threads, const float* x, const float* w, float* y, std::int64_t rows, std::int64_t out,
              std::int64_t in) {
  openblas_set_num_threads(threads);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<blasint>(rows), static_cast<blasint>(out),
              static_cast<blasint>(in), 1.0f, x, static_cast<blasint>(in), w, static_cast<blasint>(in), 0.0f,
              y, static_cast<blasint>(out));
  openblas_set_num_threads(1);
}

std::string blas_version() { return openblas_get_config(); }

std::string blas_core() { return openblas_get_corename(); }

}  // namespace mezzo::cpu
