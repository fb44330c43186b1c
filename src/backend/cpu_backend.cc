#include "cpu_backend.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "backends.h"
#include "kernels/cpu/noise.h"
#include "kernels/cpu/update.h"
#include "mezzo/core/error.h"
#include "mezzo/core/limits.h"
#include "mezzo/core/process.h"

namespace mezzo {

std::string CpuBackend::device() const {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string model = "host";
  for (std::string line; std::getline(cpuinfo, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      model = line.substr(colon + 2);
      break;
    }
  }
  return fmt::format("{}, {} thread{}", model, threads_, threads_ == 1 ? "" : "s");
}

std::map<std::string, std::string> CpuBackend::fingerprint() const {
  return {
      {"backend", "cpu"},   {"blas", cpu::blas_version()}, {"blas_core", cpu::blas_core()},
      {"isa", "x86-64-v3"}, {"libm", math_library()},      {"rows_per_block", std::to_string(block_rows)}};
}

std::size_t CpuBackend::scratch_bytes(const Workload& workload) const {
  Arena arena;
  lay_out(cpu_sizes_of(workload), threads_, arena);
  return arena.high_water();
}

void CpuBackend::prepare(const Workload& workload) {
  check_served(*this, workload);
  sizes_.grow_to(cpu_sizes_of(workload));
  Arena measured;
  lay_out(sizes_, threads_, measured);
  memory_ = Arena();  // the old scratch goes before the new one comes
  memory_ = Arena(allocate(measured.high_water()));
  scratch_ = lay_out(sizes_, threads_, memory_);
}

void CpuBackend::fill_normal(View destination, std::uint64_t seed, float scale) {
  const std::int64_t cols = destination.cols;
  for_rows(1, destination.rows, [&](std::int64_t, std::int64_t i) {
    std::vector<float> row(static_cast<std::size_t>(cols));
    cpu::fill_noise(row.data(), cols, NoiseKind::gaussian, seed, 0, static_cast<std::uint64_t>(i * cols));
    for (float& value : row) value *= scale;
    load(destination.row_range(i, 1), DType::f32, row.data(), false);
  });
}

void CpuBackend::perturb(const ProbeTable& table, std::int64_t first, std::int64_t count,
                         const DenseNoise& noise, float offset, View destination) {
  check_perturb(table, first, count, noise, destination);
  check_shape("perturb", "the destination", destination, noise.value.rows, noise.value.cols);
  constexpr std::int64_t piece = 4096;  // elements of a row
  const std::int64_t cols = destination.cols;
  const std::int64_t pieces = (cols + piece - 1) / piece;
  const std::span<const Probe> probes = std::span(table.probes).subspan(static_cast<std::size_t>(first));
  parallel(destination.rows * pieces, [&](std::int64_t item, int) {
    const std::int64_t i = item / pieces;
    const std::int64_t begin = item % pieces * piece;
    const std::int64_t elements = std::min(piece, cols - begin);
    alignas(64) float z[piece];
    cpu::fill_noise(z, elements, table.noise, probes.front().seed, noise.tensor,
                    static_cast<std::uint64_t>(i * cols + begin));
    alignas(64) float value[piece];
    with_masters(noise.value, [&](const auto* values) {
      for (std::int64_t j = 0; j < elements; ++j) value[j] = master_value(values[i * cols + begin + j]);
    });
    for (std::int64_t copy = 0; copy < count; ++copy) {
      const float epsilon = probes[static_cast<std::size_t>(copy)].epsilon;
      float* const to = rows_of(destination, copy).row(i) + begin;
      for (std::int64_t j = 0; j < elements; ++j) to[j] = perturbed(value[j], offset, epsilon, z[j]);
    }
  });
}

void CpuBackend::update(Trainables& trainables, Trainables& state, const UpdateStep& step, NoiseKind noise) {
  const UpdateState kept = update_state(step.factors, trainables, state);
  for (std::size_t id = 0; id < trainables.list.size(); ++id) {
    const Trainable& tensor = trainables.list[id];
    with_masters(trainables.view(id), [&](auto* theta) {
      cpu::update(theta, state_of(kept, step.factors, trainables, id), tensor.count(), tensor.noise(id),
                  step.seeds, step.coefficients, noise, step.factors, threads_, step.rounding);
    });
  }
}

std::uint64_t CpuBackend::hash(const Trainables& trainables) {
  std::uint64_t sum = 0;
  for (std::size_t id = 0; id < trainables.list.size(); ++id) {
    sum += with_masters(trainables.view(id), [&](const auto* theta) {
      return cpu::hash(theta, trainables.list[id].count(), static_cast<std::uint32_t>(id), threads_);
    });
  }
  return sum;
}

void CpuBackend::check_scratch(const char* operation, const char* what, std::int64_t room,
                               std::int64_t needed) {
  if (room < needed) {
    throw DeviceError("{}: {} has room for {} elements, but {} are needed: prepare() saw a smaller workload",
                      operation, what, room, needed);
  }
}

namespace {

void check_address_space(int threads) {
  const std::size_t bytes = static_cast<std::size_t>(threads) * blas_buffer_bytes;
  void* const space = ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) {
    throw DeviceError(
        "device cpu: no memory for BLAS, which maps {} MiB for {} threads: {}; ulimit -v leaves less",
        bytes >> 20, threads, std::strerror(errno));
  }
  ::munmap(space, bytes);
}

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
  if (options.threads < 1) throw DeviceError("device cpu: {} threads, expected at least 1", options.threads);
  check_address_space(options.threads);
  check_threads(options.threads - 1, "computing (runtime.threads)");  // OpenMP would end the process
  return std::make_unique<CpuBackend>(options.threads);
}

}  // namespace mezzo
