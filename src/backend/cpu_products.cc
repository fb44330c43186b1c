// The cpu backend's products: W x by OpenBLAS a block of rows at a time, and the low-rank terms beside it.
#include <algorithm>
#include <vector>

#include "cpu_backend.h"
#include "host_routing.h"
#include "kernels/cpu/activation.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/noise.h"
#include "kernels/cpu/partition.h"
#include "kernels/cpu/rows.h"
#include "mezzo/core/error.h"

namespace mezzo {

using cpu::Partition;

/// A perturbed part of the product in flight.
struct CpuBackend::PerturbedPart {
  const LowRankTail* tail = nullptr;
  std::int64_t row_begin = 0;  // of the product's weight
  std::int64_t rows = 0;
  std::int64_t rank_begin = 0;  // its columns of s, and its rows of the stacked A
  std::int64_t rank = 0;
  std::int64_t b_begin = 0;  // its B's first float among a probe's factors
};

/// The perturbed parts of a product in flight and where their factors and s lie.
struct CpuBackend::Tails {
  std::vector<PerturbedPart> parts;
  std::int64_t ranks = 0;   // of all parts: row stride of s
  std::int64_t floats = 0;  // a probe's factors
  std::int64_t rows = 0;    // of x

  explicit operator bool() const { return !parts.empty(); }
};

namespace {

constexpr std::int64_t noise_elements = 4096;  // of a factor in one piece of noise

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

}  // namespace

void CpuBackend::RowBlocks::add(std::int64_t probe, std::int64_t begin, std::int64_t rows,
                                std::int64_t s_begin) {
  const Partition cut(rows, block_rows);
  for (std::int64_t i = 0; i < cut.parts(); ++i) {
    all.push_back({probe, begin + cut.begin(i), cut.size(i), s_begin + cut.begin(i)});
    most_rows = std::max(most_rows, cut.size(i));
  }
  if (probe == 0) of_first_probe = all.size();
  probe_rows = std::max(probe_rows, s_begin + rows);
}

void CpuBackend::add_rows(RowBlocks& blocks, std::int64_t probe, std::int64_t rows) const {
  if (apart_.empty()) return blocks.add(probe, 0, rows, 0);
  if (rows != apart_.back()) {
    for (std::int64_t row = 0; row < rows; ++row) blocks.add(probe, row, 1, row);
    return;
  }
  for (std::size_t i = 0; i + 1 < apart_.size(); ++i)
    blocks.add(probe, apart_[i], apart_[i + 1] - apart_[i], apart_[i]);
}

void CpuBackend::product(const ProbeTable& table, const Product& product, std::size_t first_part, View x,
                         std::span<const View> y, Epilogue epilogue) {
  check_shape("product", "x", x, x.rows, product.in());
  const std::vector<ProductOutput> outputs = outputs_of(product, first_part, y, epilogue.gated);
  for (const ProductOutput& output : outputs) {
    check_shape("product", "y", output.y, x.rows, output.y.cols);
    check_sharing("product", output.y, x);
  }
  RowBlocks blocks;
  for (std::int64_t p = 0; p < std::max<std::int64_t>(1, table.count()); ++p) add_rows(blocks, p, x.rows);
  multiply(table, product, outputs, x, blocks, epilogue);
}

void CpuBackend::gate(const ProbeTable& table, Activation activation, View gate_up, View y) {
  check_gate(gate_up, y);
  for_rows(copies_of(y, table), y.rows, [&](std::int64_t p, std::int64_t t) {
    const Rows<float> first{rows_of(gate_up, p).row(t), gate_up.row_stride};
    const Rows<const float> second{first.data + y.cols, gate_up.row_stride};
    gated_activation(activation, first, second, 1, y.cols, {rows_of(y, p).row(t), y.row_stride});
  });
}

void CpuBackend::expert_product(const ProbeTable& table, std::span<const Product* const> experts,
                                const Routing& routing, View x, View y, Epilogue epilogue) {
  check_expert_product(table, experts, routing, x, y);
  for (std::size_t e = 0; e < experts.size(); ++e) {
    // What an expert gets of a probe is cut by its number of rows, which the probe alone decides; of
    // sequences that are kept apart each row stands alone.
    RowBlocks blocks;
    for (std::int64_t p = 0; p < std::max<std::int64_t>(1, table.count()); ++p) {
      const std::int32_t* const begin = integers_of(routing.begins, p);
      const std::int64_t rows = begin[e + 1] - begin[e];
      if (apart_.empty()) blocks.add(p, begin[e], rows, 0);
      for (std::int64_t row = 0; !apart_.empty() && row < rows; ++row) blocks.add(p, begin[e] + row, 1, row);
    }
    if (blocks.all.empty()) continue;
    multiply(table, *experts[e], outputs_of(*experts[e], 0, {{y}}, epilogue.gated), x, blocks, epilogue);
  }
}

void CpuBackend::multiply(const ProbeTable& table, const Product& product,
                          const std::vector<ProductOutput>& outputs, View x, const RowBlocks& blocks,
                          Epilogue epilogue) {
  const Tails tails = make_tails(table, product, outputs, x, blocks);
  for (const ProductOutput& output : outputs) {
    if (epilogue.gated) {
      gated(table, product, output, x, blocks, tails, epilogue.activation);
    } else {
      plain(table, product, output, x, blocks, tails, epilogue.activation);
    }
  }
}

CpuBackend::Tails CpuBackend::make_tails(const ProbeTable& table, const Product& product,
                                         const std::vector<ProductOutput>& outputs, View x,
                                         const RowBlocks& blocks) {
  Tails tails;
  tails.rows = blocks.probe_rows;
  for (const ProductOutput& output : outputs) {
    for (std::size_t i = output.first; i < output.first + output.count; ++i) {
      const ProductPart& part = product.parts[i];
      const LowRankTail* const tail = part.tail();
      if (tail == nullptr) continue;
      if (output.y.shared()) {
        throw DeviceError("product {}: the probes share the output of a perturbed part ({})", product.name,
                          part.name);
      }
      if (!tail->outer) {
        check_factor(part, "A", tail->a, tail->a.rows, product.in());
        check_factor(part, "B", tail->b, part.rows, tail->a.rows);
      }
      tails.parts.push_back({.tail = tail,
                             .row_begin = part.row_begin,
                             .rows = part.rows,
                             .rank_begin = tails.ranks,
                             .rank = tail->a.rows});
      tails.ranks += tail->a.rows;
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
  check_scratch("product", "s", scratch_.s.rows * scratch_.s.cols, table.count() * tails.rows * tails.ranks);
  perturb_factors(table, product, tails);

  parallel(std::ssize(blocks.all), [&](std::int64_t item, int) {
    const RowBlock& block = blocks.all[static_cast<std::size_t>(item)];
    cpu::linear({rows_of(x, block.probe).row(block.first), x.row_stride}, block.rows, product.in(),
                {factors(tails, block.probe), product.in()}, tails.ranks,
                s_rows(tails, block.probe, block.s_first));
  });
  return tails;
}

void CpuBackend::check_factor(const ProductPart& part, const char* factor, const View& view,
                              std::int64_t rows, std::int64_t cols) {
  check_shape(part.name.c_str(), factor, view, rows, cols);
  if (view.row_stride != cols) {
    throw DeviceError("{}: factor {} has rows {} elements apart, expected {}", part.name, factor,
                      view.row_stride, cols);
  }
}

void CpuBackend::perturb_factors(const ProbeTable& table, const Product& product, const Tails& tails) {
  struct Piece {
    std::int64_t leader;  // first probe of the direction
    const LowRankTail* tail;
    bool is_a;  // else its B
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
    const auto cut = [&](const LowRankTail* tail, bool is_a, std::int64_t count, std::int64_t place) {
      const Partition parts(count, noise_elements);
      for (std::int64_t i = 0; i < parts.parts(); ++i) {
        pieces.push_back({p, tail, is_a, parts.begin(i), parts.size(i), place});
      }
    };
    for (const PerturbedPart& part : tails.parts) {
      cut(part.tail, true, part.rank * product.in(), part.rank_begin * product.in());
      cut(part.tail, false, part.rows * part.rank, part.b_begin);
    }
  }
  parallel(std::ssize(pieces), [&](std::int64_t item, int) {
    const Piece& piece = pieces[static_cast<std::size_t>(item)];
    const LowRankTail& tail = *piece.tail;
    const Probe& leader = table.probes[static_cast<std::size_t>(piece.leader)];
    std::vector<cpu::PerturbedCopy> copies;
    for (std::int64_t p = piece.leader; p < table.count(); ++p) {
      const Probe& probe = table.probes[static_cast<std::size_t>(p)];
      if (!same(probe, leader)) continue;
      const float epsilon = piece.is_a ? tail.a_epsilon(probe.epsilon) : probe.epsilon;
      copies.push_back({epsilon, factors(tails, p) + piece.place});
    }
    cpu::perturb((piece.is_a ? tail.a : tail.b).as<float>(), piece.begin, piece.count, table.noise,
                 leader.seed, piece.is_a ? tail.a_noise : tail.b_noise, copies);
  });
}

float* CpuBackend::factors(const Tails& tails, std::int64_t p) const {
  return scratch_.factors.as<float>() + p * tails.floats;
}

Rows<float> CpuBackend::s_rows(const Tails& tails, std::int64_t p, std::int64_t row) const {
  return {scratch_.s.as<float>() + (p * tails.rows + row) * tails.ranks, tails.ranks};
}

void CpuBackend::add_tails(const Tails& tails, std::int64_t p, const RowBlock& block, std::int64_t begin,
                           std::int64_t end, Rows<float> y) const {
  for (const PerturbedPart& part : tails.parts) {
    const std::int64_t from = std::max(begin, part.row_begin);
    const std::int64_t to = std::min(end, part.row_begin + part.rows);
    if (from >= to) continue;
    const Rows<float> s = s_rows(tails, p, block.s_first);
    const float* b = factors(tails, p) + part.b_begin + (from - part.row_begin) * part.rank;
    cpu::add_linear({s.data + part.rank_begin, s.stride}, block.rows, part.rank, {b, part.rank}, to - from,
                    part.tail->scaling, {y.data + (from - begin), y.stride});
  }
}

void CpuBackend::plain(const ProbeTable& table, const Product& product, const ProductOutput& output, View x,
                       const RowBlocks& blocks, const Tails& tails, Activation activation) const {
  const std::int64_t row_begin = product.parts[output.first].row_begin;
  const float* bias = product.bias ? product.bias.as<float>() + row_begin : nullptr;
  const Rows<float> weight = rows_of(product.weight.codes, 0);
  const std::int64_t copies = copies_of(output.y, table);
  const std::span<const RowBlock> bases = blocks.of(x.shared() ? std::min<std::int64_t>(copies, 1) : copies);
  parallel(std::ssize(bases), [&](std::int64_t item, int) {
    const RowBlock& block = bases[static_cast<std::size_t>(item)];
    const std::int64_t base = block.probe;
    const std::int64_t rows = block.rows;
    const auto y = [&](std::int64_t p) {
      return Rows<float>{rows_of(output.y, p).row(block.first), output.y.row_stride};
    };
    const std::int64_t cols = output.y.cols;
    cpu::linear({rows_of(x, base).row(block.first), x.row_stride}, rows, product.in(),
                {weight.row(row_begin), weight.stride}, cols, y(base));
    if (bias != nullptr) cpu::add_bias(bias, rows, cols, y(base));
    // The base's own probe comes last: the others copy what it holds.
    const std::int64_t last = x.shared() ? copies : base + 1;
    for (std::int64_t p = last - 1; p >= base; --p) {
      if (p != base) cpu::copy_rows(y(base), rows, cols, y(p));
      add_tails(tails, p, block, row_begin, row_begin + cols, y(p));
      for (std::int64_t i = 0; i < rows; ++i) activate(activation, y(p).row(i), cols);
    }
  });
}

void CpuBackend::gated(const ProbeTable& table, const Product& product, const ProductOutput& output, View x,
                       const RowBlocks& blocks, const Tails& tails, Activation activation) const {
  const std::int64_t gate_begin = product.parts[output.first].row_begin;
  const std::int64_t up_begin = product.parts[output.first + 1].row_begin;
  const Rows<float> weight = rows_of(product.weight.codes, 0);
  const std::int64_t cols = output.y.cols;
  check_scratch("product", "a thread's tile", scratch_.tiles.cols,
                std::min(tile_floats, blocks.most_rows * 2 * cols));
  const std::span<const RowBlock> of_copies = blocks.of(copies_of(output.y, table));
  parallel(std::ssize(of_copies), [&](std::int64_t item, int thread) {
    const RowBlock& block = of_copies[static_cast<std::size_t>(item)];
    const std::int64_t p = block.probe;
    const std::int64_t rows = block.rows;
    const Rows<const float> from{rows_of(x, p).row(block.first), x.row_stride};
    const Partition chunks(cols, tile_columns(rows) / 2);
    for (std::int64_t chunk = 0; chunk < chunks.parts(); ++chunk) {
      const std::int64_t begin = chunks.begin(chunk);
      const std::int64_t size = chunks.size(chunk);
      const auto half = [&](std::int64_t row_begin, Rows<float> to) {
        cpu::linear(from, rows, product.in(), {weight.row(row_begin), weight.stride}, size, to);
        if (product.bias) cpu::add_bias(product.bias.as<float>() + row_begin, rows, size, to);
        add_tails(tails, p, block, row_begin, row_begin + size, to);
      };
      const Rows<float> gate{tile(thread), 2 * size};
      const Rows<float> up{tile(thread) + size, 2 * size};
      half(gate_begin + begin, gate);
      half(up_begin + begin, up);
      gated_activation(activation, gate, up, rows, size,
                       {rows_of(output.y, p).row(block.first) + begin, output.y.row_stride});
    }
  });
}

}  // namespace mezzo
