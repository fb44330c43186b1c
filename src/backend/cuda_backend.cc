// The CUDA backend: one card, one stream. Weights and activations in bf16 (or fp32), everything that is
// summed, normalised or perturbed in fp32; the residual stream in fp32.
//
// A product in bf16 is one by cuBLASLt (cuda_gemm.h) straight into y, bias and GELU included; low-rank terms
// ride on it as further columns of x and W (kernels/cuda/low_rank.h), other activations follow apart. What
// that cannot serve (fp32, odd sizes, tails over an x that all probes share) goes the plain way: W x into
// fp32 scratch, a range of rows at a time, from where `finish` adds bias and tails, applies the activation
// and rounds once. The head's logits are summed where they arise (kernels/cuda/head.h) if the card can do
// that.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>

#include "backends.h"
#include "cuda_check.h"
#include "cuda_gemm.h"
#include "cuda_plan.h"
#include "host_backend.h"
#include "kernels/cuda/activation.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/flash_attention.h"
#include "kernels/cuda/head.h"
#include "kernels/cuda/low_rank.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/score.h"
#include "kernels/cuda/tail.h"
#include "kernels/cuda/update.h"
#include "mezzo/core/error.h"

namespace mezzo {
namespace {

static_assert(sizeof(cuda::Perturbation) == sizeof(Probe) &&
                  offsetof(cuda::Perturbation, seed) == offsetof(Probe, seed) &&
                  offsetof(cuda::Perturbation, direction) == offsetof(Probe, direction) &&
                  offsetof(cuda::Perturbation, epsilon) == offsetof(Probe, epsilon),
              "kernels read probes as they lie in a ProbeTable");
static_assert(static_cast<int>(cuda::Curve::silu) == static_cast<int>(Activation::silu) &&
                  static_cast<int>(cuda::Curve::gelu_tanh) == static_cast<int>(Activation::gelu_tanh) &&
                  static_cast<int>(cuda::Curve::gelu_erf) == static_cast<int>(Activation::gelu_erf) &&
                  static_cast<int>(cuda::Curve::relu) == static_cast<int>(Activation::relu),
              "kernels number activations as the interface does");

constexpr int oldest_capability = 80;
const std::string algorithm_prefix = "gemm ";  // of the fingerprint's keys

cuda::Matrices matrices(const View& view) {
  return {.data = view.data,
          .dtype = view.dtype,
          .row_stride = view.row_stride,
          .copy_stride = view.probe_stride};
}

const std::int32_t* integers(const View& view) { return view.as<std::int32_t>(); }

std::int64_t copies_on(const View& output, const ProbeTable& table) {
  return output.shared() ? 1 : table.count();
}

void check_view(const char* operation, const char* operand, const View& view, std::int64_t rows,
                std::int64_t cols, DType dtype) {
  if (view.data == nullptr && rows * cols > 0) throw DeviceError("{}: {} has no data", operation, operand);
  if (view.dtype != dtype) {
    throw DeviceError("{}: {} is of element type {}, expected {}", operation, operand, name_of(view.dtype),
                      name_of(dtype));
  }
  if (view.rows != rows || view.cols != cols) {
    throw DeviceError("{}: {} is [{}, {}], expected [{}, {}]", operation, operand, view.rows, view.cols, rows,
                      cols);
  }
}

/// All rows of all copies lie one row stride apart.
bool is_flat(const View& view) { return view.shared() || view.probe_stride == view.rows * view.row_stride; }

bool is_aligned(const View& view) {
  const auto multiple = [](std::size_t bytes) { return bytes % vector_bytes == 0; };
  const std::size_t size = size_of(view.dtype);
  return multiple(reinterpret_cast<std::uintptr_t>(view.data)) &&
         multiple(static_cast<std::size_t>(view.row_stride) * size) &&
         multiple(static_cast<std::size_t>(view.probe_stride) * size);
}

/// Neighbouring probes of one direction share a slot.
struct Slots {
  std::vector<std::int32_t> of;     // [P]
  std::vector<std::int32_t> first;  // [slots + 1] a slot's first probe; P at the end

  explicit Slots(std::span<const Probe> probes) {
    for (std::size_t p = 0; p < probes.size(); ++p) {
      if (p == 0 || probes[p].seed != probes[p - 1].seed) first.push_back(static_cast<std::int32_t>(p));
      of.push_back(static_cast<std::int32_t>(first.size() - 1));
    }
    first.push_back(static_cast<std::int32_t>(probes.size()));
  }
  std::int64_t count() const { return std::ssize(first) - 1; }
};

/// A probe table in device memory: Probe[P], then Slots::of and Slots::first.
struct DeviceTable {
  const cuda::Perturbation* probes;
  const std::int32_t* slot;
  const std::int32_t* first_probe;

  explicit DeviceTable(const ProbeTable& table)
      : probes(static_cast<const cuda::Perturbation*>(table.device.data())),
        slot(reinterpret_cast<const std::int32_t*>(probes + table.count())),
        first_probe(slot + table.count()) {}
};

/// A batch's questions by the row that they read, as cuda::Questions has them.
struct QuestionsByRow {
  std::vector<std::int32_t> begins;     // [reads + 1]
  std::vector<std::int32_t> questions;  // those of rows that are there: score() reports the others

  explicit QuestionsByRow(const PackedBatch& batch) : begins(batch.reads.size() + 1, 0) {
    const std::vector<std::int32_t>& reads = batch.question_reads;
    const auto there = [&](std::int32_t read) { return read >= 0 && read < std::ssize(batch.reads); };
    for (const std::int32_t read : reads) {
      if (there(read)) ++begins[static_cast<std::size_t>(read) + 1];
    }
    std::partial_sum(begins.begin(), begins.end(), begins.begin());
    questions.resize(static_cast<std::size_t>(begins.back()));
    std::vector<std::int32_t> next = begins;
    for (std::size_t j = 0; j < reads.size(); ++j) {
      if (!there(reads[j])) continue;
      std::int32_t& place = next[static_cast<std::size_t>(reads[j])];
      questions[static_cast<std::size_t>(place++)] = static_cast<std::int32_t>(j);
    }
  }
};

/// A batch's questions in device memory: QuestionsByRow::begins and ::questions lie behind the batch's rows.
cuda::Questions questions_of(const DeviceBatch& batch) {
  const std::int32_t* const behind = integers(batch.question_tokens) + batch.shape.questions;
  return {.reads = integers(batch.question_reads),
          .tokens = integers(batch.question_tokens),
          .row_begins = behind,
          .row_questions = behind + batch.shape.reads + 1,
          .count = batch.shape.questions};
}

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const BackendOptions& options)
      : dtype_(options.fp32 ? DType::f32 : DType::bf16),
        plan_(options.fp32, cuda_fuses_head(options.device_index)) {
    MEZZO_CUDA(cudaSetDevice(options.device_index));
    MEZZO_CUDA(cudaGetDeviceProperties(&card_, options.device_index));
    cudaStream_t stream = nullptr;
    MEZZO_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    stream_.reset(stream);
    fault_ = allocate(sizeof(std::uint32_t));
    MEZZO_CUDA(cudaMemsetAsync(fault_.data(), 0, sizeof(std::uint32_t), stream));
    gemm_.emplace(stream, allocate(Gemm::workspace_bytes), Gemm::Choice::same_bits, options.store);
  }

  std::string name() const override { return plan_.name(); }
  DType weight_dtype() const override { return plan_.weight_dtype(); }
  DType activation_dtype() const override { return plan_.activation_dtype(); }
  DType residual_dtype() const override { return plan_.residual_dtype(); }
  std::int64_t input_stride(const Product& product) const override { return plan_.input_stride(product); }
  std::int64_t weight_stride(std::int64_t in, std::int64_t tail_ranks) const override {
    return plan_.weight_stride(in, tail_ranks);
  }
  std::int64_t weight_rows(std::int64_t rows) const override { return plan_.weight_rows(rows); }
  std::size_t scratch_bytes(const Workload& workload) const override { return plan_.scratch_bytes(workload); }

  std::string device() const override {
    return fmt::format("{}, {:.0f} GiB", card_.name, static_cast<double>(card_.totalGlobalMem) / (1u << 30));
  }
  std::map<std::string, std::string> fingerprint() const override {
    int runtime = 0;
    MEZZO_CUDA(cudaRuntimeGetVersion(&runtime));
    std::map<std::string, std::string> fingerprint = {
        {"backend", "cuda"},
        {"card", card_.name},
        {"capability", fmt::format("{}.{}", card_.major, card_.minor)},
        {"cublaslt", std::to_string(cublasLtGetVersion())},
        {"cuda", std::to_string(runtime)},
        {"dtype", std::string(name_of(dtype_))},
        {"head", plan_.fused_head() ? "fused" : "cublaslt"}};
    for (const auto& [shape, algorithm] : gemm_->record()) fingerprint[algorithm_prefix + shape] = algorithm;
    return fingerprint;
  }
  void keep(const std::map<std::string, std::string>& fingerprint) override {
    std::map<std::string, std::string> record;
    for (const auto& [key, value] : fingerprint) {
      if (key.starts_with(algorithm_prefix)) record[key.substr(algorithm_prefix.size())] = value;
    }
    gemm_->keep(record);
  }

  std::size_t memory_available() const override {
    std::size_t available = 0;
    std::size_t total = 0;
    MEZZO_CUDA(cudaMemGetInfo(&available, &total));
    return available;
  }

  void choose(const Workload& workload) override {
    if (slot_rows_ == 0) slot_rows_ = 2 * std::max<std::int64_t>(1, workload.largest.tokens);
    for (const PlannedProduct& planned : workload.products) plan(planned);
  }

  void prepare(const Workload& workload) override {
    choose(workload);
    repeated_ = {};  // its graph points into the scratch
    sizes_.grow_to(plan_.sizes_of(workload));
    Arena measured;
    lay_out(sizes_, measured);
    memory_ = Arena();  // the old scratch goes before the new one comes
    memory_ = Arena(allocate(measured.high_water()));
    scratch_ = lay_out(sizes_, memory_);
  }

  // ---- memory
  Buffer allocate(std::size_t bytes) override {
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, std::max<std::size_t>(bytes, 1));
    if (status == cudaErrorMemoryAllocation) {
      static_cast<void>(
          cudaGetLastError());  // this error is reported here and must not show in the next call
      throw DeviceError("{}: {} bytes of memory could not be allocated, {} are free", device(), bytes,
                        memory_available());
    }
    MEZZO_CUDA(status);
    return Buffer(data, bytes, [](void* released, std::size_t) { static_cast<void>(cudaFree(released)); });
  }

  void load(View destination, DType source_dtype, const void* source, bool transposed) override {
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

  void fill_normal(View destination, std::uint64_t seed, float scale) override {
    if (destination.dtype != DType::f32 && destination.dtype != DType::bf16) {
      throw DeviceError("fill_normal: the destination is of element type {}, expected F32 or BF16",
                        name_of(destination.dtype));
    }
    MEZZO_CUDA(
        cuda::fill_normal(matrices(destination), destination.rows, destination.cols, seed, scale, stream()));
  }

  void read(std::span<float> destination, View source, std::int64_t probes) override {
    const std::int64_t copies = source.shared() ? 1 : probes;
    const auto expected = static_cast<std::size_t>(copies * source.rows * source.cols);
    if (destination.size() != expected) {
      throw DeviceError("read: room for {} elements, but the view has {}", destination.size(), expected);
    }
    if (source.dtype != DType::f32 && source.dtype != DType::bf16) {
      throw DeviceError("read: the source is of element type {}, expected F32 or BF16",
                        name_of(source.dtype));
    }
    grow(staging_, destination.size_bytes());
    MEZZO_CUDA(cuda::to_dense(matrices(source), source.rows, source.cols, copies,
                              static_cast<float*>(staging_.data()), stream()));
    MEZZO_CUDA(cudaMemcpyAsync(destination.data(), staging_.data(), destination.size_bytes(),
                               cudaMemcpyDeviceToHost, stream()));
    synchronize();
  }

  void upload(const PackedBatch& batch, DeviceBatch& destination) override {
    const std::array<BatchRow, 6> rows = rows_of(batch, destination);
    std::vector<std::int32_t> all;
    for (const auto& [view, values] : rows) all.insert(all.end(), values->begin(), values->end());
    const QuestionsByRow by_row(batch);
    all.insert(all.end(), by_row.begins.begin(), by_row.begins.end());
    all.insert(all.end(), by_row.questions.begin(), by_row.questions.end());
    copy_to(destination.storage, all.data(), all.size() * sizeof(std::int32_t));
    destination.shape = shape_of(batch);
    auto* at = static_cast<std::int32_t*>(destination.storage.data());
    for (const auto& [view, values] : rows) {
      *view = dense(at, DType::i32, 1, std::ssize(*values));
      at += values->size();
    }
  }

  void upload(std::span<const Probe> probes, NoiseKind noise, ProbeTable& destination) override {
    destination.probes.assign(probes.begin(), probes.end());
    destination.noise = noise;
    const Slots slots(probes);
    std::vector<std::byte> bytes;
    for (const auto& part :
         {std::as_bytes(probes), std::as_bytes(std::span(slots.of)), std::as_bytes(std::span(slots.first))}) {
      bytes.insert(bytes.end(), part.begin(), part.end());
    }
    copy_to(destination.device, bytes.data(), bytes.size());
  }

  void* native_stream() const override { return stream(); }

  void synchronize() override {
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
      case cuda::Fault::question:
        throw DeviceError("score: a question's row or token is outside of the logits");
      case cuda::Fault::none:
        break;
    }
    throw DeviceError("a kernel reported fault {}", fault);
  }

  // ---- the forward
  void embed(const DeviceBatch& batch, View table, View positions_table, std::int64_t position_offset,
             View h) override {
    check_view("embed", "h", h, batch.tokens.cols, table.cols, plan_.residual_dtype());
    check_view("embed", "the table", table, table.rows, table.cols, dtype_);
    if (positions_table) {
      check_view("embed", "the positions' table", positions_table, positions_table.rows, table.cols, dtype_);
    }
    MEZZO_CUDA(cuda::embed(matrices(table), table.rows, integers(batch.tokens), matrices(positions_table),
                           positions_table.rows, integers(batch.positions), position_offset, h.rows, h.cols,
                           matrices(h), fault(), stream()));
  }

  void residual_norm(const ProbeTable& table, View h_in, std::span<const View> deltas, View h_out,
                     const Norm& norm, View x) override {
    constexpr const char* operation = "residual_norm";
    check_view(operation, "h_in", h_in, h_in.rows, h_in.cols, plan_.residual_dtype());
    check_view(operation, "x", x, h_in.rows, h_in.cols, dtype_);
    check_sharing(operation, x, h_in);
    if (deltas.size() > 2) throw DeviceError("{}: {} deltas, expected 0 to 2", operation, deltas.size());
    for (const View& delta : deltas) {
      check_view(operation, "a delta", delta, h_in.rows, h_in.cols, dtype_);
      check_sharing(operation, x, delta);
    }
    if (h_out) {
      check_view(operation, "h_out", h_out, h_in.rows, h_in.cols, plan_.residual_dtype());
      if (h_out.shared() != x.shared()) {
        throw DeviceError("{}: h_out and x are the same sum, but only one of them is shared by the probes",
                          operation);
      }
    }
    check_view(operation, "the weight", norm.weight, 1, h_in.cols, DType::f32);
    cuda::ResidualNorm operands{.h_in = matrices(h_in),
                                .delta = {},
                                .deltas = static_cast<int>(deltas.size()),
                                .h_out = matrices(h_out),
                                .layer = norm.kind == NormKind::layer,
                                .weight = norm.weight.as<float>(),
                                .bias = norm.bias.as<float>(),
                                .epsilon = norm.epsilon,
                                .x = matrices(x)};
    for (std::size_t i = 0; i < deltas.size(); ++i) operands.delta[i] = matrices(deltas[i]);
    MEZZO_CUDA(cuda::residual_norm(operands, x.rows, x.cols, copies_on(x, table), stream()));
  }

  void product(const ProbeTable& table, const Product& product, std::size_t first_part, View x,
               std::span<const View> y, Epilogue epilogue) override {
    check_input("product", product, x);
    const std::vector<ProductOutput> outputs = outputs_of(product, first_part, y, epilogue.gated);
    for (const ProductOutput& output : outputs) {
      const DType dtype = output.y.dtype == DType::f32 ? DType::f32 : dtype_;
      check_view("product", "y", output.y, x.rows, output.y.cols, dtype);
      check_sharing("product", output.y, x);
    }
    const std::size_t past = outputs.back().first + outputs.back().count;
    const ProductRange range = range_of(product, first_part, past - first_part);
    if (const std::optional<View> whole = direct_output(product, range, x, outputs, epilogue)) {
      direct_product(table, product, range, x, *whole, epilogue);
    } else if (takes_gated(product, range, x, outputs, epilogue)) {
      gated_product(table, product, range, x, outputs.front().y, epilogue.activation);
    } else {
      plain_product(table, product, range, x, outputs, epilogue);
    }
  }

  /// W x, with all that the columns and the library's epilogue can hold, into `whole`; an activation that the
  /// library does not have follows in place.
  void direct_product(const ProbeTable& table, const Product& product, const ProductRange& range,
                      const View& x, const View& whole, const Epilogue& epilogue) {
    const GemmShape shape = chosen(product, direct_shape(product, range, whole.dtype, epilogue));
    if (shape.k > product.in()) {
      multiply_with_tails(table, product, range, shape, x, whole.data, whole.row_stride);
    } else {
      multiply(product, range, shape, x, 0, copies_on(x, table) * x.rows, whole.data, whole.row_stride);
    }
    if (epilogue.activation == Activation::none || epilogue.activation == Activation::gelu_tanh) return;
    cuda::Matrices y = matrices(whole);
    y.copy_stride = 0;  // one matrix of all rows
    MEZZO_CUDA(cuda::activate(y, static_cast<cuda::Curve>(epilogue.activation), false,
                              copies_on(whole, table) * whole.rows, whole.cols, y, stream()));
  }

  /// gate | up, a range of rows at a time, then activation(gate) * up.
  void gated_product(const ProbeTable& table, const Product& product, const ProductRange& range,
                     const View& x, const View& y, Activation activation) {
    const std::int64_t stride = range.rows;
    const GemmShape shape = chosen(product, direct_shape(product, range, dtype_, {}));
    const std::int64_t rows = copies_on(x, table) * x.rows;
    const std::int64_t most = scratch_.accumulators.cols * 2 / stride;  // two bf16 in the place of a float
    check_scratch("product", "accumulators", scratch_.accumulators, std::min(rows, fewest_rows) * stride / 2);
    const cuda::Matrices both{.data = scratch_.accumulators.data, .dtype = dtype_, .row_stride = stride};
    for (std::int64_t first = 0; first < rows; first += most) {
      const std::int64_t count = std::min(most, rows - first);
      multiply(product, range, shape, x, first, count, both.data, stride);
      cuda::Matrices to = matrices(y);
      to.data =
          static_cast<std::byte*>(y.data) + static_cast<std::size_t>(first * y.row_stride) * size_of(y.dtype);
      to.copy_stride = 0;
      MEZZO_CUDA(
          cuda::activate(both, static_cast<cuda::Curve>(activation), true, count, y.cols, to, stream()));
    }
  }

  /// W x in fp32, then everything else.
  void plain_product(const ProbeTable& table, const Product& product, const ProductRange& range,
                     const View& x, const std::vector<ProductOutput>& outputs, const Epilogue& epilogue) {
    const GemmShape shape = chosen(product, plain_shape(product, range));
    const std::int64_t stride = aligned_floats(shape.n);
    const bool perturbed = prepare_tails(table, product, range, x);
    const std::int64_t rows = copies_on(x, table) * x.rows;
    const std::int64_t rows_a_range = range_rows("product", stride, rows);
    for (std::int64_t first = 0; first < rows; first += rows_a_range) {
      const std::int64_t count = std::min(rows_a_range, rows - first);
      multiply(product, range, shape, x, first, count, scratch_.accumulators.data, stride);
      for (const ProductOutput& output : outputs) {
        cuda::Finish operands{.base = scratch_.accumulators.as<float>(),
                              .base_stride = stride,
                              .base_rows = x.shared() ? 0 : x.rows,
                              .first = first,
                              .count = count,
                              .column = {},
                              .gated = epilogue.gated,
                              .curve = static_cast<cuda::Curve>(epilogue.activation),
                              .s = perturbed ? scratch_.s.as<float>() : nullptr,
                              .ranks = range.ranks,
                              .b_copy_stride = range.factors,
                              .rows = x.rows,
                              .cols = 0,
                              .y = {}};
        std::int64_t column = 0;
        for (std::size_t i = output.first; i < output.first + output.count; i += epilogue.gated ? 2 : 1) {
          operands.column[0] = column_of(product, range, i);
          if (epilogue.gated) operands.column[1] = column_of(product, range, i + 1);
          operands.cols = product.parts[i].rows;
          operands.y = matrices(output.y.columns(column, operands.cols));
          MEZZO_CUDA(cuda::finish(operands, copies_on(output.y, table), stream()));
          column += operands.cols;
        }
      }
    }
  }

  void rotate(const ProbeTable& table, const DeviceBatch& batch, const Rope& rope, View row_index,
              std::int64_t head_dim, View x) override {
    const std::int64_t heads = x.cols / head_dim;
    check_view("rotate", "x", x, row_index ? row_index.cols : batch.positions.cols, heads * head_dim, dtype_);
    cuda::Rotation rotation = rotation_of("rotate", rope, head_dim);
    rotation.heads = heads;
    MEZZO_CUDA(cuda::rotate(rotation, integers(batch.positions), batch.positions.cols, integers(row_index),
                            x.rows, copies_on(x, table), matrices(x), fault(), stream()));
  }

  void attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                 const Rope* rope, View q, View k, View v, View query_rows, View out) override {
    const std::int64_t tokens = batch.tokens.cols;
    const std::int64_t queries = query_rows ? query_rows.cols : tokens;
    check_view("attention", "q", q, queries, shape.heads * shape.head_dim, dtype_);
    check_view("attention", "k", k, tokens, shape.kv_heads * shape.head_dim, dtype_);
    check_view("attention", "v", v, tokens, shape.kv_heads * shape.head_dim, dtype_);
    check_view("attention", "out", out, queries, shape.heads * shape.head_dim, dtype_);
    for (const View& input : {q, k, v}) check_sharing("attention", out, input);
    if (shape.head_dim > 256) throw DeviceError("attention: heads of {}, expected up to 256", shape.head_dim);
    const cuda::Attention operands{.q = matrices(q),
                                   .k = matrices(k),
                                   .v = matrices(v),
                                   .out = matrices(out),
                                   .offsets = integers(batch.offsets),
                                   .query_rows = integers(query_rows),
                                   .queries = queries,
                                   .sequences = batch.shape.sequences,
                                   .longest = batch.shape.longest,
                                   .heads = shape.heads,
                                   .kv_heads = shape.kv_heads,
                                   .head_dim = shape.head_dim,
                                   .scale = shape.scale};
    const bool flash = cuda::flash_attend_fits(operands);
    cuda::Rotary rotary;
    if (rope != nullptr) {
      const cuda::Rotation rotation = rotation_of("attention", *rope, shape.head_dim);
      if (flash && cuda::flash_rotary_fits(rotation)) {
        const bool keys_first = cuda::keys_first(operands, copies_on(out, table));
        if (keys_first) rotate(table, batch, *rope, View{}, shape.head_dim, k);
        rotary = {.rotation = rotation,
                  .positions = integers(batch.positions),
                  .keys = !keys_first,
                  .fault = fault()};
      } else {
        rotate(table, batch, *rope, query_rows, shape.head_dim, q);
        rotate(table, batch, *rope, View{}, shape.head_dim, k);
      }
    }
    if (flash) {
      MEZZO_CUDA(cuda::flash_attend(operands, rotary, copies_on(out, table), stream()));
    } else {
      MEZZO_CUDA(cuda::attend(operands, copies_on(out, table), stream()));
    }
  }

  void gather(const ProbeTable& table, View x, View rows, View out) override {
    check_view("gather", "out", out, rows.cols, x.cols, x.dtype);
    check_sharing("gather", out, x);
    MEZZO_CUDA(cuda::gather(matrices(x), x.rows, integers(rows), out.rows, out.cols, copies_on(out, table),
                            matrices(out), fault(), stream()));
  }

  void score(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
             View out) override {
    check_input("score", head, x);
    check_view("score", "x", x, batch.shape.reads, head.in(), dtype_);
    check_view("score", "out", out, 1, batch.shape.questions, DType::f32);
    check_sharing("score", out, x);
    if (head.perturbed()) throw DeviceError("score: a perturbed head ({}) is not supported", head.name);
    if (plan_.fused_head()) {
      score_by_sums(table, batch, head, x, out);
    } else {
      score_by_logits(table, batch, head, x, out);
    }
  }

  /// What comes a third time is captured as a graph: launches of small kernels take longer than they do.
  void repeat(std::span<const std::uint64_t> key, const std::function<void()>& enqueue) override {
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

  // ---- the update
  void update(Trainables& trainables, const UpdateStep& step, NoiseKind noise) override {
    if (step.seeds.size() != step.coefficients.size()) {
      throw DeviceError("update: {} seeds, but {} coefficients", step.seeds.size(), step.coefficients.size());
    }
    const std::size_t directions = step.seeds.size();
    const cuda::TensorTable tensors = upload_tables(
        trainables, {std::as_bytes(std::span(step.seeds)), std::as_bytes(std::span(step.coefficients))});
    const auto* seeds = reinterpret_cast<const std::uint64_t*>(tensors.quad_begin + tensors.count + 1);
    MEZZO_CUDA(cuda::update(static_cast<float*>(trainables.values.data()), tensors,
                            {.seeds = seeds,
                             .coefficients = reinterpret_cast<const float*>(seeds + directions),
                             .directions = static_cast<std::int64_t>(directions),
                             .learning_rate = step.learning_rate,
                             .weight_decay = step.weight_decay,
                             .noise = noise},
                            stream()));
  }

  std::uint64_t hash(const Trainables& trainables) override {
    unsigned long long sum = 0;
    const cuda::TensorTable tensors = upload_tables(trainables, {std::as_bytes(std::span(&sum, 1))});
    auto* const place = reinterpret_cast<unsigned long long*>(const_cast<std::int64_t*>(tensors.quad_begin) +
                                                              tensors.count + 1);
    MEZZO_CUDA(cuda::hash(static_cast<const float*>(trainables.values.data()), tensors, place, stream()));
    MEZZO_CUDA(cudaMemcpyAsync(&sum, place, sizeof(sum), cudaMemcpyDeviceToHost, stream()));
    synchronize();
    return sum;
  }

 private:
  /// The last key of repeat() and what became of it.
  struct Repeated {
    std::vector<std::uint64_t> key;
    int times = 0;
    GraphExec graph;  // null until captured
  };
  static constexpr int repeats_before_graph = 3;

  cudaStream_t stream() const { return stream_.get(); }

  static cuda::Rotation rotation_of(const char* operation, const Rope& rope, std::int64_t head_dim) {
    check_view(operation, "the cosines", rope.cosines, rope.cosines.rows, rope.dims / 2, DType::f32);
    check_view(operation, "the sines", rope.sines, rope.cosines.rows, rope.dims / 2, DType::f32);
    if (rope.sines.row_stride != rope.cosines.row_stride)
      throw DeviceError("{}: the tables' rows are not equally far apart", operation);
    return {.half_split = rope.style == RopeStyle::half_split,
            .dims = rope.dims,
            .head_dim = head_dim,
            .heads = 0,
            .places = rope.cosines.rows,
            .cosines = rope.cosines.as<float>(),
            .sines = rope.sines.as<float>(),
            .table_stride = rope.cosines.row_stride};
  }
  std::uint32_t* fault() const { return static_cast<std::uint32_t*>(fault_.data()); }

  void grow(Buffer& buffer, std::size_t bytes) {
    if (buffer.data() != nullptr && buffer.bytes() >= bytes) return;
    buffer = Buffer();  // the old one goes first; freeing waits for what still reads it
    buffer = allocate(bytes);
  }

  /// Host memory to the start of `buffer`, which grows as needed. `source` has been read on return: the
  /// memory is pageable, and of such the runtime takes a copy first.
  void copy_to(Buffer& buffer, const void* source, std::size_t bytes) {
    grow(buffer, bytes);
    if (bytes == 0) return;
    MEZZO_CUDA(cudaMemcpyAsync(buffer.data(), source, bytes, cudaMemcpyHostToDevice, stream()));
  }

  // ---- scratch
  static void check_scratch(const char* operation, const char* what, const View& prepared,
                            std::int64_t needed) {
    if (prepared.cols < needed) {
      throw DeviceError("{}: {} need {} elements, but {} were prepared", operation, what, needed,
                        prepared.cols);
    }
  }

  /// How many rows of `stride` floats the accumulators take at a time, of `rows` in all.
  std::int64_t range_rows(const char* operation, std::int64_t stride, std::int64_t rows) const {
    check_scratch(operation, "accumulators", scratch_.accumulators, std::min(rows, fewest_rows) * stride);
    return std::min(std::max<std::int64_t>(rows, 1), scratch_.accumulators.cols / stride);
  }

  // ---- products
  const std::byte* weight_of(const Product& product, const ProductRange& range) const {
    return static_cast<const std::byte*>(product.weight.data) +
           static_cast<std::size_t>(range.row_begin * product.weight.row_stride) * size_of(dtype_);
  }

  void check_input(const char* operation, const Product& product, const View& x) const {
    check_view(operation, "x", x, x.rows, product.in(), dtype_);
    check_view(operation, "the weight", product.weight, product.out(), product.in(), dtype_);
    if (!is_aligned(x) || !is_aligned(product.weight)) {
      throw DeviceError("{}: rows of x and of the weight must begin on multiples of {} bytes", operation,
                        vector_bytes);
    }
  }

  // ---- shapes
  /// Where a product's tails lie behind its `in` columns, in this run.
  cuda::TailColumns columns_of(const Product& product) const {
    return columns_for(product.in(), product.tail_ranks(), slot_rows_);
  }

  /// In whole units of columns where the weight's storage has rows for them: an odd number runs slowly.
  GemmShape plain_shape(const Product& product, const ProductRange& range) const {
    const std::int64_t whole = (range.rows + unit_columns - 1) / unit_columns * unit_columns;
    const bool stored = range.row_begin + whole <= product.stored_rows;
    return {.n = stored ? whole : range.rows, .k = product.in(), .in = dtype_, .out = DType::f32};
  }

  /// With the columns of the product's tails, and what of the epilogue the library does.
  GemmShape direct_shape(const Product& product, const ProductRange& range, DType out,
                         const Epilogue& epilogue) const {
    GemmShape shape{.n = range.rows, .k = product.in(), .in = dtype_, .out = out};
    if (range.ranks > 0) shape.k += columns_of(product).width();
    const bool gelu = epilogue.activation == Activation::gelu_tanh;
    if (product.bias) shape.epilogue = gelu ? GemmEpilogue::bias_gelu_tanh : GemmEpilogue::bias;
    if (!product.bias && gelu) shape.epilogue = GemmEpilogue::gelu_tanh;
    return shape;
  }

  /// `shape`, with its algorithm chosen. A run has chosen all of them in prepare().
  GemmShape chosen(const Product& product, const GemmShape& shape) {
    if (gemm_->chosen(shape)) return shape;
    const std::int64_t slots = shape.k > product.in() ? columns_of(product).slots : 0;
    const std::int64_t rows = searched_rows(shape, slots, slot_rows_);
    const Buffer scratch = allocate(Gemm::search_bytes(shape, rows));
    gemm_->choose(shape, rows, scratch.data(), scratch.bytes());
    return shape;
  }

  /// Chooses for the shapes that a forward asks for.
  void plan(const PlannedProduct& planned) {
    if (planned.scored && plan_.fused_head()) return;
    const Product& product = *planned.product;
    const std::vector<std::pair<std::size_t, std::size_t>> ranges = product_ranges(product);
    const ProductRange all = range_of(product, 0, product.parts.size());
    if (planned.scored || dtype_ == DType::f32 || !fits_directly(product, all)) {
      for (const auto& [first, count] : ranges) {
        const ProductRange range = range_of(product, first, count);
        chosen(product, plain_shape(product, range));
      }
      return;
    }
    if (planned.epilogue.gated) {
      chosen(product, direct_shape(product, all, dtype_, {}));
      return;
    }
    for (const auto& [first, count] : ranges) {
      const ProductRange range = range_of(product, first, count);
      chosen(product, direct_shape(product, range, dtype_, planned.epilogue));
      if (product.perturbed()) chosen(product, plain_shape(product, range));
    }
  }

  /// Rows [first, first + count) of all copies of x, one copy after another, times the range's weight.
  void multiply(const Product& product, const ProductRange& range, const GemmShape& shape, const View& x,
                std::int64_t first, std::int64_t count, void* y, std::int64_t y_stride) const {
    const std::int64_t last = first + count;
    for (std::int64_t row = first; row < last;) {
      const std::int64_t copy = x.shared() ? 0 : row / x.rows;
      const std::int64_t end = is_flat(x) ? last : std::min(last, (copy + 1) * x.rows);
      const std::int64_t x_begin = copy * x.probe_stride + (row - copy * x.rows) * x.row_stride;
      gemm_->run(
          shape,
          {.weight = weight_of(product, range),
           .weight_stride = product.weight.row_stride,
           .x = static_cast<const std::byte*>(x.data) + static_cast<std::size_t>(x_begin) * size_of(shape.in),
           .x_stride = x.row_stride,
           .rows = end - row,
           .y = static_cast<std::byte*>(y) +
                static_cast<std::size_t>((row - first) * y_stride) * size_of(shape.out),
           .y_stride = y_stride,
           .bias = product.bias ? static_cast<const std::byte*>(product.bias.data) +
                                      static_cast<std::size_t>(range.row_begin) * size_of(product.bias.dtype)
                                : nullptr});
      row = end;
    }
  }

  /// Whether the library can write the range in the activations' type, bias and tails included.
  bool fits_directly(const Product& product, const ProductRange& range) const {
    const auto in_units = [](std::int64_t columns) { return columns % unit_columns == 0; };
    if (range.ranks > 0 && !plan_.takes_columns(product.in(), product.tail_ranks())) return false;
    if (!product.bias) return true;
    return product.bias.dtype == dtype_ && in_units(range.row_begin) && in_units(range.rows);
  }

  /// One matrix that direct_product() can write, or none: the outputs lie side by side.
  std::optional<View> direct_output(const Product& product, const ProductRange& range, const View& x,
                                    const std::vector<ProductOutput>& outputs,
                                    const Epilogue& epilogue) const {
    const bool plain = range.ranks == 0 && !product.bias && epilogue.activation == Activation::none;
    if (epilogue.gated || (!plain && dtype_ != DType::bf16) || !fits_directly(product, range)) return {};
    View whole = outputs.front().y;
    for (std::size_t i = 1; i < outputs.size(); ++i) {
      const View& next = outputs[i].y;
      const auto* end = static_cast<const std::byte*>(whole.data) +
                        static_cast<std::size_t>(whole.cols) * size_of(whole.dtype);
      if (next.data != end || next.dtype != whole.dtype || next.row_stride != whole.row_stride ||
          next.probe_stride != whole.probe_stride) {
        return {};
      }
      whole.cols += next.cols;
    }
    if (whole.shared() != x.shared() || !is_flat(whole) || !is_aligned(whole)) return {};
    if (!plain && (whole.dtype != dtype_ || whole.cols % unit_columns != 0)) return {};
    if (range.ranks > 0 && (!is_flat(x) || x.row_stride < product.in() + columns_of(product).width()))
      return {};
    return whole;
  }

  bool takes_gated(const Product& product, const ProductRange& range, const View& x,
                   const std::vector<ProductOutput>& outputs, const Epilogue& epilogue) const {
    if (!epilogue.gated || dtype_ != DType::bf16 || range.ranks > 0 || !fits_directly(product, range))
      return false;
    const View& y = outputs.front().y;
    return y.dtype == dtype_ && y.shared() == x.shared() && is_flat(y) && is_aligned(y) &&
           y.cols % unit_columns == 0;
  }

  /// The tails of parts [first, first + count), ranks counted through them; their rows from `row_begin` on.
  static cuda::LowRanks low_ranks(const Product& product, std::size_t first, std::size_t count,
                                  std::int64_t row_begin) {
    cuda::LowRanks tails;
    std::int64_t ranks = 0;
    for (std::size_t i = first; i < first + count; ++i) {
      const ProductPart& part = product.parts[i];
      if (!part.tail) continue;
      if (tails.count == cuda::most_tails) {
        throw DeviceError("product {}: more than {} tails", product.name, cuda::most_tails);
      }
      const LowRankTail& tail = *part.tail;
      tails.tail[tails.count++] = {.a = tail.a.as<float>(),
                                   .b = tail.b.as<float>(),
                                   .a_tensor = tail.a_id,
                                   .b_tensor = tail.b_id,
                                   .rank_begin = ranks,
                                   .rank = tail.a.rows,
                                   .scaling = tail.scaling,
                                   .row_begin = part.row_begin - row_begin,
                                   .rows = part.rows};
      ranks += tail.a.rows;
    }
    return tails;
  }

  /// Rows of x times W, with s and the slots' noise in the columns behind: consecutive ranges of a few slots
  /// each over the same weight.
  void multiply_with_tails(const ProbeTable& table, const Product& product, const ProductRange& range,
                           const GemmShape& shape, const View& x, void* y, std::int64_t y_stride) {
    if (table.device.data() == nullptr)
      throw DeviceError("product {}: the probes were not uploaded", product.name);
    const DeviceTable device(table);
    const Slots slots(table.probes);
    const cuda::TailColumns columns = columns_of(product);
    const cuda::LowRanks tails = low_ranks(product, 0, product.parts.size(), range.row_begin);
    check_scratch("product", "planes of factors", scratch_.planes,
                  cuda::factor_elements(columns.ranks, product.in(), slots.count()));
    // As few ranges as there is room for, and those alike.
    const std::int64_t ranges = (slots.count() + columns.slots - 1) / columns.slots;
    const std::int64_t slots_a_range = (slots.count() + ranges - 1) / ranges;
    MEZZO_CUDA(cuda::project_factors(tails, columns.ranks, product.in(), table.noise, device.probes,
                                     device.first_probe, slots.count(), scratch_.planes.data, stream()));
    MEZZO_CUDA(cuda::project_columns(matrices(x), x.rows, product.in(), table.count(), tails, columns,
                                     device.probes, device.slot, slots_a_range, scratch_.planes.data,
                                     stream()));
    auto* const weight = const_cast<std::byte*>(weight_of(product, range));
    for (std::int64_t slot = 0; slot < slots.count(); slot += slots_a_range) {
      const std::int64_t past = std::min(slot + slots_a_range, slots.count());
      MEZZO_CUDA(cuda::expand(weight, product.weight.row_stride, range.rows, product.in(), tails, columns,
                              table.noise, device.probes, device.first_probe + slot, past - slot, stream()));
      const std::int64_t first = slots.first[static_cast<std::size_t>(slot)] * x.rows;
      const std::int64_t last = slots.first[static_cast<std::size_t>(past)] * x.rows;
      multiply(product, range, shape, x, first, last - first,
               static_cast<std::byte*>(y) + static_cast<std::size_t>(first * y_stride) * size_of(shape.out),
               y_stride);
    }
  }

  /// Factors with their noise and s = A_p x, in scratch; whether there are tails at all.
  bool prepare_tails(const ProbeTable& table, const Product& product, const ProductRange& range,
                     const View& x) {
    if (range.ranks == 0) return false;
    const std::int64_t copies = table.count();
    if (table.device.data() == nullptr)
      throw DeviceError("product {}: the probes were not uploaded", product.name);
    check_scratch("product", "factors", scratch_.factors, copies * range.factors);
    check_scratch("product", "tails", scratch_.s, copies * x.rows * range.ranks);
    const DeviceTable device(table);
    const bool apart = plan_.takes_columns(product.in(), range.ranks);
    auto* const factors = scratch_.factors.as<float>();
    cuda::Factors some;
    const auto launch = [&] {
      MEZZO_CUDA(cuda::perturb(some, table.noise, device.probes, copies, factors, range.factors, stream()));
      some.count = 0;
    };
    for (const TailPlace& place : range.tails) {
      if (place.tail == nullptr) continue;
      const LowRankTail& tail = *place.tail;
      if (!apart) {
        some.factor[some.count++] = {.value = tail.a.as<float>(),
                                     .tensor = tail.a_id,
                                     .count = tail.a.rows * tail.a.cols,
                                     .begin = place.rank_begin * product.in()};
      }
      some.factor[some.count++] = {.value = tail.b.as<float>(),
                                   .tensor = tail.b_id,
                                   .count = tail.b.rows * tail.b.cols,
                                   .begin = place.b_begin};
      if (some.count + 2 > cuda::most_factors) launch();
    }
    if (some.count > 0) launch();
    auto* const s = scratch_.s.as<float>();
    if (apart) {
      const std::int64_t slots = Slots(table.probes).count();
      check_scratch("product", "planes of factors", scratch_.planes,
                    cuda::factor_elements(range.ranks, product.in(), slots));
      const cuda::LowRanks tails = low_ranks(product, range.first, range.count, range.row_begin);
      MEZZO_CUDA(cuda::project_factors(tails, range.ranks, product.in(), table.noise, device.probes,
                                       device.first_probe, slots, scratch_.planes.data, stream()));
      MEZZO_CUDA(cuda::project_apart(matrices(x), x.rows, product.in(), copies, tails, range.ranks,
                                     device.probes, device.slot, scratch_.planes.data, s, stream()));
    } else {
      MEZZO_CUDA(cuda::project(matrices(x), x.rows, x.cols, factors, range.factors, range.ranks, copies, s,
                               stream()));
    }
    return true;
  }

  cuda::Column column_of(const Product& product, const ProductRange& range, std::size_t part) const {
    const std::int64_t row = product.parts[part].row_begin;
    const TailPlace& place = range.tails[part - range.first];
    cuda::Column column{.begin = row - range.row_begin,
                        .bias = product.bias ? static_cast<const std::byte*>(product.bias.data) +
                                                   static_cast<std::size_t>(row) * size_of(product.bias.dtype)
                                             : nullptr,
                        .bias_dtype = product.bias.dtype};
    if (place.tail != nullptr) {
      column.rank = place.rank;
      column.rank_begin = place.rank_begin;
      column.b = scratch_.factors.as<float>() + place.b_begin;
      column.scaling = place.tail->scaling;
    }
    return column;
  }

  // ---- the head
  /// Sums over the logits of a range of rows, then answers; the logits themselves go nowhere.
  void score_by_sums(const ProbeTable& table, const DeviceBatch& batch, const Product& head, const View& x,
                     const View& out) {
    const std::int64_t floats = cuda::head_sums(head.out());
    const std::int64_t rows = copies_on(x, table) * x.rows;
    std::int64_t rows_a_range = range_rows("score", floats, rows);
    if (rows_a_range > cuda::head_tile_rows)
      rows_a_range = rows_a_range / cuda::head_tile_rows * cuda::head_tile_rows;
    for (std::int64_t first = 0, count = 0; first < rows; first += count) {
      const std::int64_t copy = x.shared() ? 0 : first / x.rows;
      const std::int64_t end = is_flat(x) ? rows : (copy + 1) * x.rows;  // of rows that are equally far apart
      count = std::min(rows_a_range, end - first);
      const std::int64_t begin = copy * x.probe_stride + (first - copy * x.rows) * x.row_stride;
      const cuda::Head range{
          .x = static_cast<const std::byte*>(x.data) + static_cast<std::size_t>(begin) * size_of(x.dtype),
          .x_stride = x.row_stride,
          .weight = head.weight.data,
          .weight_stride = head.weight.row_stride,
          .in = head.in(),
          .vocabulary = head.out(),
          .bias = head.bias.data,
          .bias_dtype = head.bias.dtype,
          .first = first,
          .count = count,
          .copy_rows = x.shared() ? 0 : x.rows,
          .rows = x.rows};
      auto* const sums = scratch_.accumulators.as<float>();
      MEZZO_CUDA(cuda::sum_logits(range, questions_of(batch), sums, matrices(out), stream()));
      MEZZO_CUDA(cuda::answer(range, questions_of(batch), sums, copies_on(out, table), matrices(out), fault(),
                              stream()));
    }
  }

  /// Logits of a range of rows, then their sums and answers.
  void score_by_logits(const ProbeTable& table, const DeviceBatch& batch, const Product& head, const View& x,
                       const View& out) {
    const ProductRange range = range_of(head, 0, head.parts.size());
    const GemmShape shape = chosen(head, plain_shape(head, range));
    const std::int64_t stride = aligned_floats(shape.n);
    const std::int64_t rows = copies_on(x, table) * x.rows;
    const std::int64_t rows_a_range = std::min(range_rows("score", stride, rows), scratch_.totals.cols);
    if (rows > 0 && rows_a_range == 0) throw DeviceError("score: no room for totals was prepared");
    for (std::int64_t first = 0; first < rows; first += rows_a_range) {
      const std::int64_t count = std::min(rows_a_range, rows - first);
      multiply(head, range, shape, x, first, count, scratch_.accumulators.data, stride);
      const cuda::Logits logits{.data = scratch_.accumulators.as<float>(),
                                .stride = stride,
                                .vocabulary = head.out(),
                                .bias = head.bias.data,
                                .bias_dtype = head.bias.dtype,
                                .first = first,
                                .count = count,
                                .copy_rows = x.shared() ? 0 : x.rows,
                                .rows = x.rows};
      auto* const totals = scratch_.totals.as<double>();
      MEZZO_CUDA(cuda::log_sum_exp(logits, totals, stream()));
      MEZZO_CUDA(cuda::answer(logits, totals, integers(batch.question_reads), integers(batch.question_tokens),
                              batch.shape.questions, copies_on(out, table), matrices(out), fault(),
                              stream()));
    }
  }

  // ---- the update's tables: both kinds of beginnings, then what the caller adds, in one copy to the device
  cuda::TensorTable upload_tables(const Trainables& trainables,
                                  std::initializer_list<std::span<const std::byte>> more) {
    std::vector<std::int64_t> begins;
    std::vector<std::int64_t> quad_begins{0};
    for (const Trainable& trainable : trainables.list) {
      begins.push_back(trainable.offset);
      quad_begins.push_back(quad_begins.back() + (trainable.count() + 3) / 4);
    }
    begins.push_back(trainables.count());
    const auto first = std::as_bytes(std::span(begins));
    const auto second = std::as_bytes(std::span(quad_begins));
    std::vector<std::byte> bytes(first.begin(), first.end());
    bytes.insert(bytes.end(), second.begin(), second.end());
    for (const auto& part : more) bytes.insert(bytes.end(), part.begin(), part.end());
    copy_to(tables_, bytes.data(), bytes.size());
    const auto* at = static_cast<const std::int64_t*>(tables_.data());
    return {.count = std::ssize(trainables.list),
            .elements = trainables.count(),
            .quads = quad_begins.back(),
            .begin = at,
            .quad_begin = at + begins.size()};
  }

  DType dtype_;
  CudaPlan plan_;
  cudaDeviceProp card_{};
  Stream stream_;
  Buffer fault_;    // one word of cuda::Fault
  Buffer staging_;  // of load and read
  Buffer tables_;   // of update and hash
  std::optional<Gemm> gemm_;
  Repeated repeated_;
  std::int64_t slot_rows_ = 0;  // of a two-sided direction, in the first workload; 0 before it
  CudaSizes sizes_;
  Arena memory_;
  CudaScratch scratch_;
};

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
  if (card.major * 10 + card.minor < oldest_capability) {
    return fmt::format("{} has compute capability {}.{}, expected 8.0 or later", card.name, card.major,
                       card.minor);
  }
  return "";
}

}  // namespace

bool cuda_available(std::string* reason) {
  const std::string trouble = trouble_with(0);
  if (reason != nullptr) *reason = trouble;
  return trouble.empty();
}

bool cuda_fuses_head(int index) {
  int capability[2] = {0, 0};
  if (cudaDeviceGetAttribute(&capability[0], cudaDevAttrComputeCapabilityMajor, index) != cudaSuccess ||
      cudaDeviceGetAttribute(&capability[1], cudaDevAttrComputeCapabilityMinor, index) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());  // no such card: make_cuda_backend() says so
    return false;
  }
  return cuda::head_runs_on(capability[0], capability[1]);
}

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options) {
  const std::string trouble = trouble_with(options.device_index);
  if (!trouble.empty()) throw DeviceError("device cuda: {}", trouble);
  return std::make_unique<CudaBackend>(options);
}

}  // namespace mezzo
