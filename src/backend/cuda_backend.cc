#include "cuda_backend.h"

#include <algorithm>
#include <charconv>

#include "backends.h"
#include "cuda_memory.h"
#include "cuda_operands.h"
#include "cuda_targets.h"
#include "kernels/cuda/perturb.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/tiles.h"
#include "mezzo/core/process.h"

namespace mezzo {
namespace {

const std::string algorithm_prefix = "gemm ";  // of the fingerprint's keys
const std::string direction_rows_key = "slot_rows";

/// Of a record, which may have been edited; none where it is no number of rows.
std::optional<std::int64_t> rows_from(const std::string& text) {
  std::int64_t rows = 0;
  const char* const end = text.data() + text.size();
  const auto [past, error] = std::from_chars(text.data(), end, rows);
  const bool whole = error == std::errc() && past == end;
  return whole && rows > 0 && rows < std::int64_t{1} << 40 ? std::optional(rows) : std::nullopt;
}

}  // namespace

CudaBackend::CudaBackend(const BackendOptions& options)
    : dtype_(options.fp32 ? DType::f32 : DType::bf16),
      plan_(options.fp32, cuda_runs_tiles(options.device_index)) {
  MEZZO_CUDA(cudaSetDevice(options.device_index));
  MEZZO_CUDA(cudaGetDeviceProperties(&card_, options.device_index));
  stream_ = make_stream();
  host_staging_.emplace();
  fault_ = allocate(sizeof(std::uint32_t));
  MEZZO_CUDA(cudaMemsetAsync(fault_.data(), 0, sizeof(std::uint32_t), stream()));
  gemm_.emplace(stream(), allocate(Gemm::workspace_bytes), Gemm::Choice::same_bits, options.store);
}

std::string CudaBackend::device() const { return describe(card_); }

std::map<std::string, std::string> CudaBackend::fingerprint() const {
  int runtime = 0;
  MEZZO_CUDA(cudaRuntimeGetVersion(&runtime));
  std::map<std::string, std::string> fingerprint = {
      {"backend", "cuda"},
      {"card", card_.name},
      {"capability", fmt::format("{}.{}", card_.major, card_.minor)},
      {"cublaslt", std::to_string(cublasLtGetVersion())},
      {"cuda", std::to_string(runtime)},
      {"dtype", std::string(name_of(dtype_))},
      {"gate_up", plan_.runs_tiles() ? "fused" : "cublaslt"},
      {"head", plan_.runs_tiles() ? "fused" : "cublaslt"},
      {"libm", math_library()}};
  if (direction_rows_ > 0) fingerprint[direction_rows_key] = std::to_string(direction_rows_);
  for (const auto& [shape, algorithm] : gemm_->record()) fingerprint[algorithm_prefix + shape] = algorithm;
  return fingerprint;
}

void CudaBackend::keep(const std::map<std::string, std::string>& fingerprint) {
  std::map<std::string, std::string> record;
  // Of another version of the library an algorithm's words mean nothing, or something else.
  const auto library = fingerprint.find("cublaslt");
  const bool same = library != fingerprint.end() && library->second == std::to_string(cublasLtGetVersion());
  for (const auto& [key, value] : fingerprint) {
    if (same && key.starts_with(algorithm_prefix)) record[key.substr(algorithm_prefix.size())] = value;
  }
  gemm_->keep(record);
  // How many direction blocks' columns lie behind x decides sums, too.
  if (const auto rows = fingerprint.find(direction_rows_key); rows != fingerprint.end())
    direction_rows_ = rows_from(rows->second).value_or(direction_rows_);
}

std::size_t CudaBackend::memory_available() const {
  // What comes behind the plan has to fit, too: NCCL's buffers, kernels loaded at their first call, graphs.
  constexpr std::size_t most_kept = std::size_t{1} << 30;
  const std::size_t free = free_on_card();
  return free - std::min(free / 16, most_kept);
}

void CudaBackend::choose(const Workload& workload) {
  check_served(plan_, workload);
  if (direction_rows_ == 0) {
    // Generation goes through the rows of decoding far more often than through those of prompts.
    const CacheShape& cache = workload.largest.cache;
    const std::int64_t rows = cache ? cache.slots : workload.largest.tokens;
    direction_rows_ = 2 * std::max<std::int64_t>(1, rows);
  }
  const bool stores_logits = bool{workload.largest.cache};
  for (const PlannedProduct& planned : workload.products) {
    for (const GemmShape& shape : plan_.shapes_of(planned, direction_rows_, stores_logits))
      choose_algorithm(*planned.product, shape);
  }
}

void CudaBackend::prepare(const Workload& workload) {
  choose(workload);
  repeated_ = {};  // its graph points into the scratch
  sizes_.grow_to(plan_.sizes_of(workload));
  Arena measured;
  lay_out(sizes_, measured);
  memory_ = Arena();  // the old scratch goes before the new one comes
  memory_ = Arena(allocate(measured.high_water()));
  scratch_ = lay_out(sizes_, memory_);
}

Buffer CudaBackend::allocate(std::size_t bytes) { return allocate_on_card(bytes); }

void CudaBackend::load(View destination, DType source_dtype, const void* source, bool transposed) {
  if (source_dtype != DType::f32 && source_dtype != DType::f16 && source_dtype != DType::bf16 &&
      source_dtype != DType::f64) {
    throw DeviceError("load: weights cannot be of element type {}", name_of(source_dtype));
  }
  if (destination.dtype != DType::f32 && destination.dtype != DType::bf16) {
    throw DeviceError("load: the destination is of element type {}, expected F32 or BF16",
                      name_of(destination.dtype));
  }
  const std::size_t bytes =
      static_cast<std::size_t>(destination.rows * destination.cols) * size_of(source_dtype);
  copy_to(staging_, source, bytes);
  MEZZO_CUDA(cuda::convert(matrices(destination), staging_.data(), source_dtype, destination.rows,
                           destination.cols, transposed, stream()));
}

void CudaBackend::fill_normal(View destination, std::uint64_t seed, float scale) {
  if (destination.dtype != DType::f32 && destination.dtype != DType::bf16) {
    throw DeviceError("fill_normal: the destination is of element type {}, expected F32 or BF16",
                      name_of(destination.dtype));
  }
  MEZZO_CUDA(
      cuda::fill_normal(matrices(destination), destination.rows, destination.cols, seed, scale, stream()));
}

void CudaBackend::assign(View destination, View source) {
  if (source.dtype == destination.dtype && source.dtype != DType::f32) {
    check_view("assign", "the source", source, destination.rows, destination.cols, destination.dtype);
    const auto bytes = [&](std::int64_t count) {
      return static_cast<std::size_t>(count) * size_of(source.dtype);
    };
    MEZZO_CUDA(cudaMemcpy2DAsync(destination.data, bytes(destination.row_stride), source.data,
                                 bytes(source.row_stride), bytes(source.cols),
                                 static_cast<std::size_t>(source.rows), cudaMemcpyDeviceToDevice, stream()));
    return;
  }
  check_view("assign", "the source", source, destination.rows, destination.cols, DType::f32);
  if (source.row_stride != source.cols) throw DeviceError("assign: the source is not dense");
  MEZZO_CUDA(cuda::assign(matrices(destination), source.as<float>(), source.rows, source.cols, stream()));
}

void CudaBackend::perturb(const ProbeTable& table, std::int64_t first, std::int64_t count,
                          const DenseNoise& noise, float offset, View destination) {
  check_perturb(table, first, count, noise, destination);
  MEZZO_CUDA(cuda::perturb(matrices(destination), noise.value.data, noise.value.dtype, destination.rows,
                           destination.cols, offset, noise.tensor, table.noise,
                           DeviceTable(table).probes + first, count, stream()));
}

void CudaBackend::read(std::span<float> destination, View source, std::int64_t probes) {
  const std::int64_t copies = source.shared() ? 1 : probes;
  const auto expected = static_cast<std::size_t>(copies * source.rows * source.cols);
  if (destination.size() != expected) {
    throw DeviceError("read: room for {} elements, but the view has {}", destination.size(), expected);
  }
  if (source.dtype != DType::f32 && source.dtype != DType::bf16) {
    throw DeviceError("read: the source is of element type {}, expected F32 or BF16", name_of(source.dtype));
  }
  const void* values = source.data;
  if (source.dtype != DType::f32 || source.row_stride != source.cols || !is_flat(source)) {
    grow(staging_, destination.size_bytes());
    MEZZO_CUDA(cuda::to_dense(matrices(source), source.rows, source.cols, copies,
                              static_cast<float*>(staging_.data()), stream()));
    values = staging_.data();
  }
  MEZZO_CUDA(cudaMemcpyAsync(destination.data(), values, destination.size_bytes(), cudaMemcpyDeviceToHost,
                             stream()));
  synchronize();
}

void CudaBackend::read(std::span<std::int32_t> destination, View source, std::int64_t probes) {
  const std::int64_t copies = source.shared() ? 1 : probes;
  if (std::ssize(destination) != copies * source.cols || source.rows != 1 ||
      (copies > 1 && source.probe_stride != source.cols)) {
    throw DeviceError("read: room for {} integers, expected a row of {} for each of {}", destination.size(),
                      source.cols, copies);
  }
  MEZZO_CUDA(cudaMemcpyAsync(destination.data(), source.data, destination.size_bytes(),
                             cudaMemcpyDeviceToHost, stream()));
  synchronize();
}

void CudaBackend::upload(const PackedBatch& batch, DeviceBatch& destination) {
  const auto rows = rows_of(batch, destination);
  std::vector<std::int32_t> all;
  for (const BatchRow& row : rows) all.insert(all.end(), row.values->begin(), row.values->end());
  const TargetsByRow by_row(batch);
  all.insert(all.end(), by_row.begins.begin(), by_row.begins.end());
  all.insert(all.end(), by_row.targets.begin(), by_row.targets.end());
  copy_to(destination.storage, all.data(), all.size() * sizeof(std::int32_t));
  auto* at = static_cast<std::int32_t*>(destination.storage.data());
  for (const BatchRow& row : rows) {
    *row.view = row.at(at);
    at += row.values->size();
  }
}

void CudaBackend::upload(std::span<const Probe> probes, NoiseKind noise, ProbeTable& destination) {
  destination.probes.assign(probes.begin(), probes.end());
  destination.noise = noise;
  const DirectionBlocks direction_blocks(probes);
  std::vector<std::byte> bytes;
  for (const auto& part : {std::as_bytes(probes), std::as_bytes(std::span(direction_blocks.of)),
                           std::as_bytes(std::span(direction_blocks.first))}) {
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  copy_to(destination.device, bytes.data(), bytes.size());
}

void CudaBackend::synchronize() {
  std::uint32_t fault = 0;
  MEZZO_CUDA(cudaMemcpyAsync(&fault, fault_.data(), sizeof(fault), cudaMemcpyDeviceToHost, stream()));
  MEZZO_CUDA(cudaStreamSynchronize(stream()));
  if (fault == 0) return;
  MEZZO_CUDA(cudaMemsetAsync(fault_.data(), 0, sizeof(fault), stream()));
  switch (static_cast<cuda::Fault>(fault)) {
    case cuda::Fault::token:
      throw DeviceError("embed: a token is outside of the embedding's rows");
    case cuda::Fault::position:
      throw DeviceError("embed or rotate: a position is outside of the table's rows");
    case cuda::Fault::row:
      throw DeviceError("gather or rotate: a row's index is outside of its matrix");
    case cuda::Fault::target:
      throw DeviceError("score: a target's row or token is outside of the logits");
    case cuda::Fault::none:
      break;
  }
  throw DeviceError("a kernel reported fault {}", fault);
}

void CudaBackend::repeat(std::span<const std::uint64_t> key, const std::function<void()>& enqueue) {
  if (!std::ranges::equal(key, repeated_.key)) {
    repeated_ = {};
    repeated_.key.assign(key.begin(), key.end());
  }
  if (!repeated_.graph && ++repeated_.times < repeats_before_graph) {
    enqueue();
    return;
  }
  if (!repeated_.graph) {
    MEZZO_CUDA(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal));
    cudaGraph_t captured = nullptr;
    try {
      enqueue();
    } catch (...) {
      static_cast<void>(cudaStreamEndCapture(stream(), &captured));  // the first error is the one to tell
      const Graph discarded(captured);
      throw;
    }
    MEZZO_CUDA(cudaStreamEndCapture(stream(), &captured));
    const Graph graph(captured);
    cudaGraphExec_t executable = nullptr;
    MEZZO_CUDA(cudaGraphInstantiate(&executable, graph.get(), 0));
    repeated_.graph.reset(executable);
  }
  MEZZO_CUDA(cudaGraphLaunch(repeated_.graph.get(), stream()));
}

void CudaBackend::update(Trainables& trainables, Trainables& state, const UpdateStep& step, NoiseKind noise) {
  if (step.seeds.size() != step.coefficients.size()) {
    throw DeviceError("update: {} seeds, but {} coefficients", step.seeds.size(), step.coefficients.size());
  }
  const UpdateState kept = update_state(step.factors, trainables, state);
  const std::size_t directions = step.seeds.size();
  const cuda::TensorTable tensors = upload_tables(
      trainables, {std::as_bytes(std::span(step.seeds)), std::as_bytes(std::span(step.coefficients))});
  const auto* seeds = reinterpret_cast<const std::uint64_t*>(tensors.group_begin + tensors.count + 1);
  const cuda::Step on_device{.seeds = seeds,
                             .coefficients = reinterpret_cast<const float*>(seeds + directions),
                             .directions = static_cast<std::int64_t>(directions),
                             .factors = step.factors,
                             .noise = noise,
                             .rounding = step.rounding};
  MEZZO_CUDA(with_masters(trainables.all(), [&](auto* values) {
    return cuda::update(values, kept, tensors, on_device, stream());
  }));
  for (std::size_t id = 0; id < trainables.list.size(); ++id) {
    const Trainable& trainable = trainables.list[id];
    if (trainable.noise_rank == 0) continue;
    if (trainables.dtype != DType::f32)
      throw DeviceError("update: noise of low rank is of trainables in fp32");
    const cuda::OuterTensor tensor{.noise = trainable.noise(id), .rows = trainable.rows};
    grow(outer_factors_,
         static_cast<std::size_t>(tensor.factor_floats(on_device.directions)) * sizeof(float));
    MEZZO_CUDA(cuda::update_outer(trainables.view(id).as<float>(),
                                  state_of(kept, step.factors, trainables, id), tensor, on_device,
                                  static_cast<float*>(outer_factors_.data()), stream()));
  }
}

std::uint64_t CudaBackend::hash(const Trainables& trainables) {
  unsigned long long sum = 0;
  const cuda::TensorTable tensors = upload_tables(trainables, {std::as_bytes(std::span(&sum, 1))});
  auto* const place = reinterpret_cast<unsigned long long*>(const_cast<std::int64_t*>(tensors.group_begin) +
                                                            tensors.count + 1);
  MEZZO_CUDA(with_masters(trainables.all(),
                          [&](const auto* values) { return cuda::hash(values, tensors, place, stream()); }));
  MEZZO_CUDA(cudaMemcpyAsync(&sum, place, sizeof(sum), cudaMemcpyDeviceToHost, stream()));
  synchronize();
  return sum;
}

void CudaBackend::grow(Buffer& buffer, std::size_t bytes) {
  if (buffer.data() != nullptr && buffer.bytes() >= bytes) return;
  buffer = Buffer();  // the old one goes first; freeing waits for what still reads it
  buffer = allocate(bytes);
}

void CudaBackend::copy_to(Buffer& buffer, const void* source, std::size_t bytes) {
  grow(buffer, bytes);
  host_staging_->copy(buffer.data(), source, bytes, stream());
}

cuda::TensorTable CudaBackend::upload_tables(const Trainables& trainables,
                                             std::initializer_list<std::span<const std::byte>> more) {
  std::vector<std::int64_t> begins;
  std::vector<std::int64_t> group_begins{0};
  for (const Trainable& trainable : trainables.list) {
    begins.push_back(trainable.offset);
    const std::int64_t groups = (trainable.count() + cuda::group_elements - 1) / cuda::group_elements;
    group_begins.push_back(group_begins.back() + (trainable.noise_rank > 0 ? 0 : groups));
  }
  begins.push_back(trainables.count());
  const auto first = std::as_bytes(std::span(begins));
  const auto second = std::as_bytes(std::span(group_begins));
  std::vector<std::byte> bytes(first.begin(), first.end());
  bytes.insert(bytes.end(), second.begin(), second.end());
  for (const auto& part : more) bytes.insert(bytes.end(), part.begin(), part.end());
  copy_to(tables_, bytes.data(), bytes.size());
  const auto* at = static_cast<const std::int64_t*>(tables_.data());
  return {.count = std::ssize(trainables.list),
          .elements = trainables.count(),
          .groups = group_begins.back(),
          .begin = at,
          .group_begin = at + begins.size()};
}

namespace {

/// Why no card can be used, or "".
std::string trouble_with(int index) {
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return fmt::format("no CUDA device can be used: {}", cudaGetErrorString(status));
  }
  if (index >= count) {
    return fmt::format("device {} was asked for, but {} CUDA devices are there", index, count);
  }
  cudaDeviceProp card{};
  MEZZO_CUDA(cudaGetDeviceProperties(&card, index));
  const std::string trouble =
      trouble_with_capability(card.major, card.minor, parse_cuda_targets(MEZZO_CUDA_TARGETS));
  return trouble.empty() ? "" : fmt::format("{} {}", card.name, trouble);
}

}  // namespace

bool cuda_available(std::string* reason) {
  const std::string trouble = trouble_with(0);
  if (reason != nullptr) *reason = trouble;
  return trouble.empty();
}

bool cuda_runs_tiles(int index) {
  int capability[2] = {0, 0};
  if (cudaDeviceGetAttribute(&capability[0], cudaDevAttrComputeCapabilityMajor, index) != cudaSuccess ||
      cudaDeviceGetAttribute(&capability[1], cudaDevAttrComputeCapabilityMinor, index) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());  // no such card: make_cuda_backend() says so
    return false;
  }
  return cuda::tiles_run_on(capability[0], capability[1]);
}

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options) {
  const std::string trouble = trouble_with(options.device_index);
  if (!trouble.empty()) throw DeviceError("device cuda: {}", trouble);
  return std::make_unique<CudaBackend>(options);
}

}  // namespace mezzo
