#pragma once
// Single instructions (PTX ISA 8) that C++ has no name for. Below, lane = 4 * g + c with c < 4: in an 8 x 8
// matrix of 16-bit elements a lane's register has elements (g, 2c) and (g, 2c + 1).
#include <cuda_runtime.h>

#include <cstdint>

namespace mezzo::cuda {

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// ---- copies from global to shared memory that go on beside what follows: cp.async

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits for all groups but the last `pending` that this thread has committed.
template <int pending>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// ---- matrices

/// Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void load_matrices(std::uint32_t (&x)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(address)
               : "memory");
}
/// Two, by the addresses of the first 16 lanes.
__device__ inline void load_matrices(std::uint32_t (&x)[2], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(x[0]), "=r"(x[1])
               : "r"(address)
               : "memory");
}
/// Four, transposed: a lane's register has elements (2c, g) and (2c + 1, g).
__device__ inline void load_transposed(std::uint32_t (&x)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(address)
               : "memory");
}

/// sum [16, 8] += a [16, 16] b [16, 8]. A lane's part of a: rows g, g + 8, g, g + 8 at columns
/// 2c, 2c, 2c + 8, 2c + 8 and the next; of b: column g at rows 2c, 2c + 8 and the next; of sum: (g, 2c),
/// (g, 2c + 1), (g + 8, 2c), (g + 8, 2c + 1).
__device__ inline void multiply_add(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                    std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- numbers

/// 2 ** x; exactly 1 at 0, 0 at -inf.
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Two bf16, each rounded to nearest even.
__device__ inline std::uint32_t pack(float low, float high) {
  std::uint32_t x;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
  return x;
}

}  // namespace mezzo::cuda
