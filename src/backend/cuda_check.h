#pragma once
// Owners of CUDA's handles and the checks of its calls: a DeviceError names the error, the call and its
// place.
#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <memory>
#include <type_traits>

#include "mezzo/core/error.h"

namespace mezzo {

inline void check_cuda(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  throw DeviceError("{} ({}) from {} at {}:{}", cudaGetErrorString(status), cudaGetErrorName(status), call,
                    file, line);
}

inline void check_cublas(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw DeviceError("{} ({}) from {} at {}:{}", cublasLtGetStatusString(status),
                    cublasLtGetStatusName(status), call, file, line);
}

#define MEZZO_CUDA(call) ::mezzo::check_cuda((call), #call, __FILE__, __LINE__)
#define MEZZO_CUBLAS(call) ::mezzo::check_cublas((call), #call, __FILE__, __LINE__)

/// A handle (a pointer in both libraries), destroyed with its owner; what destruction reports has no reader.
template <typename Handle, auto destroy>
struct HandleDeleter {
  using pointer = Handle;
  void operator()(Handle handle) const { static_cast<void>(destroy(handle)); }
};
template <typename Handle, auto destroy>
using HandleOwner = std::unique_ptr<std::remove_pointer_t<Handle>, HandleDeleter<Handle, destroy>>;

using Stream = HandleOwner<cudaStream_t, &cudaStreamDestroy>;
using Event = HandleOwner<cudaEvent_t, &cudaEventDestroy>;
using Graph = HandleOwner<cudaGraph_t, &cudaGraphDestroy>;
using GraphExec = HandleOwner<cudaGraphExec_t, &cudaGraphExecDestroy>;

}  // namespace mezzo
