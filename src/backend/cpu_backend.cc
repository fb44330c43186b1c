// fp32 on the host's cores: OpenBLAS for products, kernels/cpu for the rest, OpenMP over pieces of work that
// are cut by shapes alone. A piece's result depends on its operands and its shape, so that a probe's loss has
// batch-invariant, and with the same bits on any number of threads (docs/decisions/0001-row-blocks.md).
#include <omp.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "backends.h"
#include "host_backend.h"
#include "kernels/cpu/activation.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/blas.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/noise.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/partition.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/score.h"
#include "kernels/cpu/update.h"
#include "mezzo/core/error.h"

namespace mezzo {
namespace {

using cpu::Partition;

constexpr std::int64_t block_rows = 256;          // most rows of one BLAS call
constexpr std::int64_t tile_floats = 512 * 1024;  // a thread's tile: gate | up, or logits, of a block of rows
constexpr std::int64_t head_columns = 2048;       // most words of the vocabulary in one piece of the head
constexpr std::int64_t noise_elements = 4096;     // of a factor in one piece of noise
constexpr std::int64_t light_rows = 32;           // rows of one piece of elementwise work

/// Columns that a tile of `rows` rows has room for.
std::int64_t tile_columns(std::int64_t rows) { return tile_floats / rows; }

void activate(Activation activation, float* x, std::int64_t count) {
  switch (activation) {
    case Activation::none:
      return;
    case Activation::silu:
      return cpu::silu(x, count);
    case Activation::gelu_tanh:
      return cpu::gelu_tanh(x, count);
    case Activation::gelu_erf:
      return cpu::gelu_erf(x, count);
    case Activation::relu:
      return cpu::relu(x, count);
  }
}

/// y = activation(gate) * up, row by row; gate is overwritten.
void gated_activation(Activation activation, Rows<float> gate, Rows<const float> up, std::int64_t rows,
                      std::int64_t cols, Rows<float> y) {
  for (std::int64_t i = 0; i < rows; ++i) {
    if (activation == Activation::silu) {
      cpu::silu_multiply(gate.row(i), up.row(i), cols, y.row(i));
    } else {
      activate(activation, gate.row(i), cols);
      cpu::multiply(gate.row(i), up.row(i), cols, y.row(i));
    }
  }
}

/// Floats that the perturbed factors of parts [first, first + count) take a probe: every A, one below the
/// other, then every B.
std::int64_t tail_ranks(const Product& product, std::size_t first, std::size_t count) {
  std::int64_t ranks = 0;
  for (std::size_t i = first; i < first + count; ++i) {
    if (product.parts[i].tail) ranks += product.parts[i].tail->a.rows;
  }
  return ranks;
}
std::int64_t tail_floats(const Product& product, std::size_t first, std::size_t count) {
  std::int64_t floats = tail_ranks(product, first, count) * product.in();
  for (std::size_t i = first; i < first + count; ++i) {
    if (product.parts[i].tail) floats += product.parts[i].rows * product.parts[i].tail->b.cols;
  }
  return floats;
}

/// What a workload needs of the scratch, in elements.
struct ScratchSizes {
  std::int64_t tile = 0;  // a thread
  std::int64_t probes = 0;
  std::int64_t factors = 0;     // a probe
  std::int64_t probe_rows = 0;  // probes * rows
  std::int64_t ranks = 0;
  std::int64_t loss_rows = 0;        // rows of a block that are read
  std::int64_t probe_loss_rows = 0;  // probes * loss_rows
  std::int64_t chunks = 0;           // of the head's columns

  void grow_to(const ScratchSizes& other) {
    tile = std::max(tile, other.tile);
    probes = std::max(probes, other.probes);
    factors = std::max(factors, other.factors);
    probe_rows = std::max(probe_rows, other.probe_rows);
    ranks = std::max(ranks, other.ranks);
    loss_rows = std::max(loss_rows, other.loss_rows);
    probe_loss_rows = std::max(probe_loss_rows, other.probe_loss_rows);
    chunks = std::max(chunks, other.chunks);
  }
};

/// The scratch of all workloads prepared for, taken from one arena.
struct Scratch {
  View tiles;    // [threads, tile]: gate | up of a block, logits of a block, an attention's keys
  View factors;  // [probes, floats]: perturbed A and B of the product in flight
  View s;        // [probes * rows, ranks]: A x of the product in flight
  View sums;     // [probes * rows of a block, chunks] of ExpSum, two floats each
  View totals;   // [probes, rows of a block] of the log of those sums
};

/// A perturbed part of the product in flight.
struct PerturbedPart {
  const LowRankTail* tail = nullptr;
  std::int64_t row_begin = 0;  // of the product's weight
  std::int64_t rows = 0;
  std::int64_t rank_begin = 0;  // its columns of s, and its rows of the stacked A
  std::int64_t rank = 0;
  std::int64_t b_begin = 0;  // its B's first float among a probe's factors
};

/// The perturbed parts of a product in flight and where their factors and s lie.
struct Tails {
  std::vector<PerturbedPart> parts;
  std::int64_t ranks = 0;   // of all parts: row stride of s
  std::int64_t floats = 0;  // a probe's factors
  std::int64_t rows = 0;    // of x

  explicit operator bool() const { return !parts.empty(); }
};

class CpuBackend final : public HostBackend {
 public:
  explicit CpuBackend(int threads) : threads_(threads) { cpu::use_one_blas_thread(); }

  std::string name() const override { return "cpu"; }

  std::string device() const override {
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

  std::map<std::string, std::string> fingerprint() const override {
    return {{"backend", "cpu"},
            {"blas", cpu::blas_version()},
            {"blas_core", cpu::blas_core()},
            {"isa", "x86-64-v3"},
            {"rows_per_block", std::to_string(block_rows)}};
  }

  std::size_t scratch_bytes(const Workload& workload) const override {
    Arena arena;
    lay_out(sizes_of(workload), arena);
    return arena.high_water();
  }

  void prepare(const Workload& workload) override {
    sizes_.grow_to(sizes_of(workload));
    Arena measured;
    lay_out(sizes_, measured);
    memory_ = Arena();  // the old scratch goes before the new one comes
    memory_ = Arena(allocate(measured.high_water()));
    scratch_ = lay_out(sizes_, memory_);
  }

  void fill_normal(View destination, std::uint64_t seed, float scale) override {
    const std::int64_t cols = destination.cols;
    check_shape("fill_normal", "the destination", destination, destination.rows, cols);
    for_rows(1, destination.rows, [&](std::int64_t, std::int64_t i) {
      float* row = rows_of(destination, 0).row(i);
      cpu::fill_noise(row, cols, NoiseKind::gaussian, seed, 0, static_cast<std::uint64_t>(i * cols));
      for (std::int64_t j = 0; j < cols; ++j) row[j] *= scale;
    });
  }

  void embed(const DeviceBatch& batch, View table, View positions_table, std::int64_t position_offset,
             View h) override {
    check_shape("embed", "h", h, batch.tokens.cols, table.cols);
    check_indices("embed", "tokens", batch.tokens, table.rows);
    if (positions_table)
      check_indices("embed", "positions", batch.positions, positions_table.rows - position_offset);
    const auto* tokens = batch.tokens.as<std::int32_t>();
    const auto* positions = batch.positions.as<std::int32_t>();
    for_rows(1, h.rows, [&](std::int64_t, std::int64_t t) {
      float* to = rows_of(h, 0).row(t);
      const float* word = rows_of(table, 0).row(tokens[t]);
      if (positions_table) {
        cpu::add(word, rows_of(positions_table, 0).row(positions[t] + position_offset), h.cols, to);
      } else {
        std::copy(word, word + h.cols, to);
      }
    });
  }

  void residual_norm(const ProbeTable& table, View h_in, std::span<const View> deltas, View h_out,
                     const Norm& norm, View x) override {
    const std::int64_t cols = h_in.cols;
    check_residual_norm(h_in, deltas, h_out, x);
    // An h that is not stored lies where its x will be.
    const View& sums = h_out ? h_out : x;
    const auto* weight = norm.weight.as<float>();
    const float* bias = norm.bias ? norm.bias.as<float>() : nullptr;
    for_rows(copies_of(x, table), x.rows, [&](std::int64_t p, std::int64_t i) {
      const float* h = rows_of(h_in, p).row(i);
      float* sum = rows_of(sums, p).row(i);
      if (deltas.empty() && h_out && sum != h) std::copy(h, h + cols, sum);
      for (const View& delta : deltas) {
        cpu::add(h, rows_of(delta, p).row(i), cols, sum);
        h = sum;
      }
      if (norm.kind == NormKind::rms) {
        cpu::rms_norm(h, cols, weight, norm.epsilon, rows_of(x, p).row(i));
      } else {
        cpu::layer_norm(h, cols, weight, bias, norm.epsilon, rows_of(x, p).row(i));
      }
    });
  }

  void product(const ProbeTable& table, const Product& product, std::size_t first_part, View x,
               std::span<const View> y, Epilogue epilogue) override {
    check_shape("product", "x", x, x.rows, product.in());
    const std::vector<ProductOutput> outputs = outputs_of(product, first_part, y, epilogue.gated);
    for (const ProductOutput& output : outputs) {
      check_shape("product", "y", output.y, x.rows, output.y.cols);
      check_sharing("product", output.y, x);
    }
    const Tails tails = make_tails(table, product, outputs, x);
    for (const ProductOutput& output : outputs) {
      if (epilogue.gated) {
        gated(table, product, output, x, tails, epilogue.activation);
      } else {
        plain(table, product, output, x, tails, epilogue.activation);
      }
    }
  }

  void rotate(const ProbeTable& table, const DeviceBatch& batch, const Rope& rope, View row_index,
              std::int64_t head_dim, View x) override {
    const std::int64_t heads = x.cols / head_dim;
    check_shape("rotate", "x", x, row_index ? row_index.cols : batch.positions.cols, heads * head_dim);
    check_indices("rotate", "positions", batch.positions, rope.cosines.rows);
    if (row_index) check_indices("rotate", "row_index", row_index, batch.positions.cols);
    const auto* positions = batch.positions.as<std::int32_t>();
    const auto rotate_row =
        rope.style == RopeStyle::half_split ? cpu::rotate_half_split : cpu::rotate_interleaved;
    for_rows(copies_of(x, table), x.rows, [&](std::int64_t p, std::int64_t i) {
      const std::int64_t position = positions[row_index ? row_index.as<std::int32_t>()[i] : i];
      rotate_row(rows_of(x, p).row(i), heads, head_dim, rope.dims, rows_of(rope.cosines, 0).row(position),
                 rows_of(rope.sines, 0).row(position));
    });
  }

  void attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                 const Rope* rope, View q, View k, View v, View query_rows, View out) override {
    if (rope != nullptr) {
      rotate(table, batch, *rope, query_rows, shape.head_dim, q);
      rotate(table, batch, *rope, View{}, shape.head_dim, k);
    }
    check_attention(batch, shape, q, k, v, query_rows, out);
    const std::int64_t queries = out.rows;
    check_scratch("attention", "a thread's tile", scratch_.tiles.cols,
                  cpu::attend_scratch(batch.shape.longest, shape.head_dim) + batch.shape.longest);

    const auto* offsets = batch.offsets.as<std::int32_t>();
    const auto* chosen = query_rows.as<std::int32_t>();
    const std::int64_t group = shape.heads / shape.kv_heads;
    const std::int64_t heads_of_batch = batch.shape.sequences * shape.kv_heads;
    parallel(copies_of(out, table) * heads_of_batch, [&](std::int64_t item, int thread) {
      const std::int64_t p = item / heads_of_batch;
      const std::int64_t sequence = item % heads_of_batch / shape.kv_heads;
      const std::int64_t kv_head = item % shape.kv_heads;
      const std::int64_t begin = offsets[sequence];
      const std::int64_t length = offsets[sequence + 1] - begin;
      float* scratch = tile(thread);
      std::int64_t first = begin;
      std::int64_t count = length;
      const std::int32_t* places = nullptr;
      if (query_rows) {
        const std::int32_t* from = std::lower_bound(chosen, chosen + queries, begin);
        const std::int32_t* to = std::lower_bound(from, chosen + queries, begin + length);
        first = from - chosen;
        count = to - from;
        auto* relative = reinterpret_cast<std::int32_t*>(scratch);
        std::transform(from, to, relative,
                       [&](std::int32_t row) { return static_cast<std::int32_t>(row - begin); });
        places = relative;
        scratch += count;
      }
      if (count == 0) return;
      const std::int64_t query_column = kv_head * group * shape.head_dim;
      const std::int64_t key_column = kv_head * shape.head_dim;
      cpu::attend({rows_of(q, p).row(first) + query_column, q.row_stride}, count, places, group,
                  {rows_of(k, p).row(begin) + key_column, k.row_stride},
                  {rows_of(v, p).row(begin) + key_column, v.row_stride}, length, shape.head_dim, shape.scale,
                  {rows_of(out, p).row(first) + query_column, out.row_stride}, scratch);
    });
  }

  void gather(const ProbeTable& table, View x, View rows, View out) override {
    check_shape("gather", "out", out, rows.cols, x.cols);
    check_sharing("gather", out, x);
    check_indices("gather", "rows", rows, x.rows);
    const auto* index = rows.as<std::int32_t>();
    for_rows(copies_of(out, table), out.rows, [&](std::int64_t p, std::int64_t i) {
      const float* from = rows_of(x, p).row(index[i]);
      std::copy(from, from + x.cols, rows_of(out, p).row(i));
    });
  }

  void score(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
             View out) override {
    const std::int64_t loss_rows = batch.shape.loss_rows;
    const std::int64_t targets = batch.shape.targets;
    check_shape("score", "x", x, loss_rows, head.in());
    check_shape("score", "out", out, 1, targets);
    check_sharing("score", out, x);
    check_indices("score", "target_rows", batch.target_rows, loss_rows);
    check_indices("score", "target_tokens", batch.target_tokens, head.out());
    if (head.perturbed()) throw DeviceError("score: a perturbed head ({}) is not supported", head.name);
    const auto* read = batch.target_rows.as<std::int32_t>();
    const auto* token = batch.target_tokens.as<std::int32_t>();
    const std::int64_t copies = copies_of(out, table);
    const Partition blocks(loss_rows, block_rows);
    const Partition chunks(head.out(), head_columns);
    check_scratch("score", "a thread's tile", scratch_.tiles.cols,
                  std::min(loss_rows, block_rows) * std::min(head.out(), head_columns));
    check_scratch("score", "sums", scratch_.sums.rows * scratch_.sums.cols,
                  2 * copies * std::min(loss_rows, block_rows) * chunks.parts());
    auto* const sums = static_cast<cpu::ExpSum*>(scratch_.sums.data);
    auto* const totals = static_cast<double*>(scratch_.totals.data);

    for (std::int64_t block = 0; block < blocks.parts(); ++block) {
      const std::int64_t first = blocks.begin(block);
      const std::int64_t rows = blocks.size(block);
      // Chunks of the vocabulary outside, probes inside: a chunk of the weight stays in a core's cache.
      parallel(chunks.parts() * copies, [&](std::int64_t item, int thread) {
        const std::int64_t p = item % copies;
        const std::int64_t chunk = item / copies;
        const std::int64_t from = chunks.begin(chunk);
        const std::int64_t words = chunks.size(chunk);
        const Rows<float> logits{tile(thread), words};
        cpu::linear({rows_of(x, p).row(first), x.row_stride}, rows, head.in(),
                    {rows_of(head.weight, 0).row(from), head.weight.row_stride}, words, logits);
        if (head.bias) cpu::add_bias(head.bias.as<float>() + from, rows, words, logits);
        for (std::int64_t i = 0; i < rows; ++i) {
          sums[(p * rows + i) * chunks.parts() + chunk] = cpu::exp_sum(logits.row(i), words);
        }
        for (std::int64_t j = 0; j < targets; ++j) {
          const std::int64_t i = read[j] - first;
          const std::int64_t word = token[j] - from;
          if (i >= 0 && i < rows && word >= 0 && word < words) rows_of(out, p).data[j] = logits.row(i)[word];
        }
      });
      parallel(copies, [&](std::int64_t p, int) {
        double* total = totals + p * rows;
        for (std::int64_t i = 0; i < rows; ++i) {
          total[i] = cpu::log_sum_exp(sums + (p * rows + i) * chunks.parts(), chunks.parts());
        }
        float* answer = rows_of(out, p).data;
        for (std::int64_t j = 0; j < targets; ++j) {
          const std::int64_t i = read[j] - first;
          if (i >= 0 && i < rows) answer[j] = static_cast<float>(answer[j] - total[i]);
        }
      });
    }
  }

  void update(Trainables& trainables, const UpdateStep& step, NoiseKind noise) override {
    for (std::size_t id = 0; id < trainables.list.size(); ++id) {
      cpu::update(trainables.view(id).as<float>(), trainables.list[id].count(),
                  static_cast<std::uint32_t>(id), step.seeds, step.coefficients, noise, step.learning_rate,
                  step.weight_decay, threads_);
    }
  }

  std::uint64_t hash(const Trainables& trainables) override {
    std::uint64_t sum = 0;
    for (std::size_t id = 0; id < trainables.list.size(); ++id) {
      sum += cpu::hash(trainables.view(id).as<float>(), trainables.list[id].count(),
                       static_cast<std::uint32_t>(id), threads_);
    }
    return sum;
  }

 private:
  // ---- work over threads

  /// f(item, thread) for every item, in any order.
  template <typename F>
  void parallel(std::int64_t items, F f) const {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads_) if (items > 1)
    for (std::int64_t item = 0; item < items; ++item) f(item, omp_get_thread_num());
  }

  /// f(p, row) for every row of every copy.
  template <typename F>
  void for_rows(std::int64_t copies, std::int64_t rows, F f) const {
    const std::int64_t all = copies * rows;
    parallel((all + light_rows - 1) / light_rows, [&](std::int64_t piece, int) {
      const std::int64_t end = std::min((piece + 1) * light_rows, all);
      for (std::int64_t i = piece * light_rows; i < end; ++i) f(i / rows, i % rows);
    });
  }

  // ---- scratch

  ScratchSizes sizes_of(const Workload& workload) const {
    const std::int64_t tokens = workload.largest.tokens;
    const std::int64_t loss_rows = std::min(workload.largest.loss_rows, block_rows);
    ScratchSizes sizes;
    std::int64_t widest = 1;
    for (const PlannedProduct& planned : workload.products) {
      const Product& product = *planned.product;
      sizes.factors = std::max(sizes.factors, tail_floats(product, 0, product.parts.size()));
      sizes.ranks = std::max(sizes.ranks, tail_ranks(product, 0, product.parts.size()));
      widest = std::max(widest, product.out());
    }
    const std::int64_t rows = std::min(std::max(tokens, loss_rows), block_rows);
    const std::int64_t attend =
        cpu::attend_scratch(workload.largest.longest, workload.attention.head_dim) + workload.largest.longest;
    sizes.tile = std::max(attend, std::min(tile_floats, rows * widest));
    sizes.chunks = Partition(widest, head_columns).parts();
    sizes.probes = workload.probes;
    sizes.loss_rows = loss_rows;
    sizes.probe_rows = workload.probes * std::max(tokens, loss_rows);
    sizes.probe_loss_rows = workload.probes * loss_rows;
    return sizes;
  }

  Scratch lay_out(const ScratchSizes& sizes, Arena& arena) const {
    Scratch scratch;
    scratch.tiles = arena.take(DType::f32, 0, threads_, sizes.tile, sizes.tile);
    scratch.factors = arena.take(DType::f32, 0, sizes.probes, sizes.factors, sizes.factors);
    scratch.s = arena.take(DType::f32, 0, sizes.probe_rows, sizes.ranks, sizes.ranks);
    scratch.sums = arena.take(DType::f32, 0, sizes.probe_loss_rows, 2 * sizes.chunks, 2 * sizes.chunks);
    scratch.totals = arena.take(DType::f64, 0, sizes.probes, sizes.loss_rows, sizes.loss_rows);
    return scratch;
  }

  static void check_scratch(const char* operation, const char* what, std::int64_t room, std::int64_t needed) {
    if (room < needed) {
      throw DeviceError(
          "{}: {} has room for {} elements, but {} are needed: prepare() saw a smaller workload", operation,
          what, room, needed);
    }
  }

  float* tile(int thread) const { return scratch_.tiles.as<float>() + thread * scratch_.tiles.row_stride; }

  // ---- products

  /// Perturbs the factors of the parts that `outputs` hold, for every probe, and computes s = A x.
  Tails make_tails(const ProbeTable& table, const Product& product, const std::vector<ProductOutput>& outputs,
                   View x) {
    Tails tails;
    tails.rows = x.rows;
    for (const ProductOutput& output : outputs) {
      for (std::size_t i = output.first; i < output.first + output.count; ++i) {
        const ProductPart& part = product.parts[i];
        if (!part.tail) continue;
        if (output.y.shared()) {
          throw DeviceError("product {}: the probes share the output of a perturbed part ({})", product.name,
                            part.name);
        }
        check_factor(part, "A", part.tail->a, part.tail->a.rows, product.in());
        check_factor(part, "B", part.tail->b, part.rows, part.tail->a.rows);
        tails.parts.push_back({.tail = &*part.tail,
                               .row_begin = part.row_begin,
                               .rows = part.rows,
                               .rank_begin = tails.ranks,
                               .rank = part.tail->a.rows});
        tails.ranks += part.tail->a.rows;
      }
    }
    if (!tails) return tails;
    tails.floats = tails.ranks * product.in();
    for (PerturbedPart& part : tails.parts) {
      part.b_begin = tails.floats;
      tails.floats += part.rows * part.rank;
    }
    check_scratch("product", "factors", scratch_.factors.rows * scratch_.factors.cols,
                  table.count() * tails.floats);
    check_scratch("product", "s", scratch_.s.rows * scratch_.s.cols, table.count() * x.rows * tails.ranks);
    perturb_factors(table, product, tails);

    const Partition blocks(x.rows, block_rows);
    parallel(table.count() * blocks.parts(), [&](std::int64_t item, int) {
      const std::int64_t p = item / blocks.parts();
      const std::int64_t block = item % blocks.parts();
      const std::int64_t first = blocks.begin(block);
      cpu::linear({rows_of(x, p).row(first), x.row_stride}, blocks.size(block), product.in(),
                  {factors(tails, p), product.in()}, tails.ranks, s_rows(tails, p, first));
    });
    return tails;
  }

  static void check_factor(const ProductPart& part, const char* factor, const View& view, std::int64_t rows,
                           std::int64_t cols) {
    check_shape(part.name.c_str(), factor, view, rows, cols);
    if (view.row_stride != cols) {
      throw DeviceError("{}: factor {} has rows {} elements apart, expected {}", part.name, factor,
                        view.row_stride, cols);
    }
  }

  /// A + sigma epsilon Z_A and B + sigma epsilon Z_B in fp32 for every probe. Probes of one direction stand
  /// in one piece of work, so that its noise is made once.
  void perturb_factors(const ProbeTable& table, const Product& product, const Tails& tails) {
    struct Piece {
      std::int64_t leader;  // first probe of the direction
      const float* factor;
      std::uint32_t tensor;
      std::int64_t begin, count;
      std::int64_t place;  // of the factor among a probe's factors
    };
    std::vector<Piece> pieces;
    const auto same = [](const Probe& a, const Probe& b) { return a.seed == b.seed; };
    for (std::int64_t p = 0; p < table.count(); ++p) {
      const Probe& probe = table.probes[static_cast<std::size_t>(p)];
      const bool leads = std::none_of(table.probes.begin(), table.probes.begin() + p,
                                      [&](const Probe& earlier) { return same(earlier, probe); });
      if (!leads) continue;
      const auto cut = [&](const float* factor, std::uint32_t tensor, std::int64_t count,
                           std::int64_t place) {
        const Partition parts(count, noise_elements);
        for (std::int64_t i = 0; i < parts.parts(); ++i) {
          pieces.push_back({p, factor, tensor, parts.begin(i), parts.size(i), place});
        }
      };
      for (const PerturbedPart& part : tails.parts) {
        cut(part.tail->a.as<float>(), part.tail->a_id, part.rank * product.in(),
            part.rank_begin * product.in());
        cut(part.tail->b.as<float>(), part.tail->b_id, part.rows * part.rank, part.b_begin);
      }
    }
    parallel(std::ssize(pieces), [&](std::int64_t item, int) {
      const Piece& piece = pieces[static_cast<std::size_t>(item)];
      const Probe& leader = table.probes[static_cast<std::size_t>(piece.leader)];
      std::vector<cpu::PerturbedCopy> copies;
      for (std::int64_t p = piece.leader; p < table.count(); ++p) {
        const Probe& probe = table.probes[static_cast<std::size_t>(p)];
        if (same(probe, leader)) copies.push_back({probe.epsilon, factors(tails, p) + piece.place});
      }
      cpu::perturb(piece.factor, piece.begin, piece.count, table.noise, leader.seed, piece.tensor, copies);
    });
  }

  float* factors(const Tails& tails, std::int64_t p) const {
    return scratch_.factors.as<float>() + p * tails.floats;
  }
  Rows<float> s_rows(const Tails& tails, std::int64_t p, std::int64_t row) const {
    return {scratch_.s.as<float>() + (p * tails.rows + row) * tails.ranks, tails.ranks};
  }

  /// y += tails of probe p, where y holds weight rows [begin, end) of activation rows [first, first + rows).
  void add_tails(const Tails& tails, std::int64_t p, std::int64_t first, std::int64_t rows,
                 std::int64_t begin, std::int64_t end, Rows<float> y) const {
    for (const PerturbedPart& part : tails.parts) {
      const std::int64_t from = std::max(begin, part.row_begin);
      const std::int64_t to = std::min(end, part.row_begin + part.rows);
      if (from >= to) continue;
      const Rows<float> s = s_rows(tails, p, first);
      const float* b = factors(tails, p) + part.b_begin + (from - part.row_begin) * part.rank;
      cpu::add_linear({s.data + part.rank_begin, s.stride}, rows, part.rank, {b, part.rank}, to - from,
                      part.tail->scaling, {y.data + (from - begin), y.stride});
    }
  }

  /// y = activation(W x + bias + tails). Where the probes share x but not y, W x is computed once and copied.
  void plain(const ProbeTable& table, const Product& product, const ProductOutput& output, View x,
             const Tails& tails, Activation activation) const {
    const std::int64_t row_begin = product.parts[output.first].row_begin;
    const float* bias = product.bias ? product.bias.as<float>() + row_begin : nullptr;
    const Rows<float> weight = rows_of(product.weight, 0);
    const Partition blocks(x.rows, block_rows);
    const std::int64_t copies = copies_of(output.y, table);
    const std::int64_t bases = x.shared() ? std::min<std::int64_t>(copies, 1) : copies;
    parallel(bases * blocks.parts(), [&](std::int64_t item, int) {
      const std::int64_t base = item / blocks.parts();
      const std::int64_t block = item % blocks.parts();
      const std::int64_t first = blocks.begin(block);
      const std::int64_t rows = blocks.size(block);
      const auto y = [&](std::int64_t p) {
        return Rows<float>{rows_of(output.y, p).row(first), output.y.row_stride};
      };
      const std::int64_t cols = output.y.cols;
      cpu::linear({rows_of(x, base).row(first), x.row_stride}, rows, product.in(),
                  {weight.row(row_begin), weight.stride}, cols, y(base));
      if (bias != nullptr) cpu::add_bias(bias, rows, cols, y(base));
      // The base's own probe comes last: the others copy what it holds.
      const std::int64_t last = x.shared() ? copies : base + 1;
      for (std::int64_t p = last - 1; p >= base; --p) {
        if (p != base) cpu::copy_rows(y(base), rows, cols, y(p));
        add_tails(tails, p, first, rows, row_begin, row_begin + cols, y(p));
        for (std::int64_t i = 0; i < rows; ++i) activate(activation, y(p).row(i), cols);
      }
    });
  }

  /// y = activation(gate) * up, of two parts that lie one below the other in the weight. Their products stay
  /// in a tile: memory sees x and y.
  void gated(const ProbeTable& table, const Product& product, const ProductOutput& output, View x,
             const Tails& tails, Activation activation) const {
    const std::int64_t gate_begin = product.parts[output.first].row_begin;
    const std::int64_t up_begin = product.parts[output.first + 1].row_begin;
    const Rows<float> weight = rows_of(product.weight, 0);
    const Partition blocks(x.rows, block_rows);
    const std::int64_t cols = output.y.cols;
    check_scratch("product", "a thread's tile", scratch_.tiles.cols,
                  std::min(tile_floats, std::min(x.rows, block_rows) * 2 * cols));
    parallel(copies_of(output.y, table) * blocks.parts(), [&](std::int64_t item, int thread) {
      const std::int64_t p = item / blocks.parts();
      const std::int64_t block = item % blocks.parts();
      const std::int64_t first = blocks.begin(block);
      const std::int64_t rows = blocks.size(block);
      const Rows<const float> from{rows_of(x, p).row(first), x.row_stride};
      const Partition chunks(cols, tile_columns(rows) / 2);
      for (std::int64_t chunk = 0; chunk < chunks.parts(); ++chunk) {
        const std::int64_t begin = chunks.begin(chunk);
        const std::int64_t size = chunks.size(chunk);
        const auto half = [&](std::int64_t row_begin, Rows<float> to) {
          cpu::linear(from, rows, product.in(), {weight.row(row_begin), weight.stride}, size, to);
          if (product.bias) cpu::add_bias(product.bias.as<float>() + row_begin, rows, size, to);
          add_tails(tails, p, first, rows, row_begin, row_begin + size, to);
        };
        const Rows<float> gate{tile(thread), 2 * size};
        const Rows<float> up{tile(thread) + size, 2 * size};
        half(gate_begin + begin, gate);
        half(up_begin + begin, up);
        gated_activation(activation, gate, up, rows, size,
                         {rows_of(output.y, p).row(first) + begin, output.y.row_stride});
      }
    });
  }

  int threads_;
  ScratchSizes sizes_;
  Arena memory_;
  Scratch scratch_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
  if (options.threads < 1) throw DeviceError("device cpu: {} threads, expected at least 1", options.threads);
  return std::make_unique<CpuBackend>(options.threads);
}

}  // namespace mezzo
