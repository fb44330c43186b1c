#include "host_backend.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "mezzo/core/error.h"
#include "mezzo/core/limits.h"

namespace mezzo {
namespace {

constexpr std::size_t alignment = 256;

/// Element i of a host array as fp32.
float element(DType dtype, const void* data, std::int64_t i) {
  switch (dtype) {
    case DType::f32:
      return static_cast<const float*>(data)[i];
    case DType::f16:
      return f16_to_float(static_cast<const std::uint16_t*>(data)[i]);
    case DType::bf16:
      return bf16_to_float(static_cast<const std::uint16_t*>(data)[i]);
    case DType::f64:
      return static_cast<float>(static_cast<const double*>(data)[i]);
    default:
      throw DeviceError("load: weights cannot be of element type {}", name_of(dtype));
  }
}

/// destination[j] = element j * step of `source`, fp32.
void convert_row(float* destination, DType dtype, const void* source, std::int64_t count, std::int64_t step) {
  if (dtype == DType::f32 && step == 1) {
    std::memcpy(destination, source, static_cast<std::size_t>(count) * sizeof(float));
  } else if (dtype == DType::bf16 && step == 1) {
    const auto* bits = static_cast<const std::uint16_t*>(source);
    for (std::int64_t j = 0; j < count; ++j) destination[j] = bf16_to_float(bits[j]);
  } else {
    for (std::int64_t j = 0; j < count; ++j) destination[j] = element(dtype, source, j * step);
  }
}

}  // namespace

std::size_t HostBackend::memory_available() const { return available_memory(1); }

Buffer HostBackend::allocate(std::size_t bytes) {
  const std::size_t rounded = std::max<std::size_t>((bytes + alignment - 1) / alignment, 1) * alignment;
  void* data = std::aligned_alloc(alignment, rounded);
  if (data == nullptr) throw DeviceError("{}: {} bytes of memory could not be allocated", device(), bytes);
  return Buffer(data, bytes, [](void* released, std::size_t) { std::free(released); });
}

void HostBackend::load(View destination, DType source_dtype, const void* source, bool transposed) {
  if (destination.dtype != DType::f32 && destination.dtype != DType::bf16) {
    throw DeviceError("load: the destination is of element type {}, expected F32 or BF16",
                      name_of(destination.dtype));
  }
  const bool rounds = destination.dtype == DType::bf16;
  std::vector<float> row(rounds ? static_cast<std::size_t>(destination.cols) : 0);
  const auto* bytes = static_cast<const std::byte*>(source);
  const auto size = static_cast<std::int64_t>(size_of(source_dtype));
  for (std::int64_t i = 0; i < destination.rows; ++i) {
    const std::int64_t first = transposed ? i : i * destination.cols;
    convert_row(rounds ? row.data() : rows_of(destination, 0).row(i), source_dtype, bytes + first * size,
                destination.cols, transposed ? destination.rows : 1);
    if (rounds)
      std::ranges::transform(row, destination.as<std::uint16_t>() + i * destination.row_stride,
                             float_to_bf16);
  }
}

void HostBackend::read(std::span<float> destination, View source, std::int64_t probes) {
  const std::int64_t copies = source.shared() ? 1 : probes;
  const auto expected = static_cast<std::size_t>(copies * source.rows * source.cols);
  if (destination.size() != expected) {
    throw DeviceError("read: room for {} elements, but the view has {}", destination.size(), expected);
  }
  float* to = destination.data();
  if (source.dtype == DType::bf16) {
    for (std::int64_t p = 0; p < copies; ++p) {
      const auto* from = source.as<std::uint16_t>() + p * source.probe_stride;
      for (std::int64_t i = 0; i < source.rows; ++i, from += source.row_stride)
        to = std::transform(from, from + source.cols, to, bf16_to_float);
    }
    return;
  }
  check_shape("read", "source", source, source.rows, source.cols);
  for (std::int64_t p = 0; p < copies; ++p) {
    for (std::int64_t i = 0; i < source.rows; ++i, to += source.cols) {
      std::memcpy(to, rows_of(source, p).row(i), static_cast<std::size_t>(source.cols) * sizeof(float));
    }
  }
}

void HostBackend::read(std::span<std::int32_t> destination, View source, std::int64_t probes) {
  const std::int64_t copies = source.shared() ? 1 : probes;
  if (std::ssize(destination) != copies * source.cols) {
    throw DeviceError("read: room for {} integers, but the row has {} for each of {}", destination.size(),
                      source.cols, copies);
  }
  for (std::int64_t p = 0; p < copies; ++p)
    std::copy_n(integers_of(source, p), source.cols, destination.begin() + p * source.cols);
}

void HostBackend::store(const ProbeTable& table, const DeviceBatch& batch, View k, View v,
                        const KeyValues& to) {
  check_store(batch, k, v, to);
  for (const auto& [from, cache] : {std::pair(k, to.k), std::pair(v, to.v)}) {
    for (std::int64_t p = 0; p < copies_of(cache, table); ++p) {
      const std::int32_t* const row = integers_of(batch.cache_rows, p);
      for (std::int64_t t = 0; t < from.rows; ++t)
        std::copy_n(rows_of(from, p).row(t), from.cols, rows_of(cache, p).row(row[t]));
    }
  }
}

void HostBackend::assign(View destination, View source) {
  check_shape("assign", "the destination", destination, destination.rows, destination.cols);
  check_shape("assign", "the source", source, destination.rows, destination.cols);
  for (std::int64_t i = 0; i < source.rows; ++i) {
    std::memcpy(rows_of(destination, 0).row(i), rows_of(source, 0).row(i),
                static_cast<std::size_t>(source.cols) * sizeof(float));
  }
}

View BatchRow::at(void* data) const {
  View row = dense(data, DType::i32, 1, std::ssize(*values) / std::max<std::int64_t>(probes, 1));
  if (probes > 0) row.probe_stride = row.cols;
  return row;
}

std::array<BatchRow, 11> rows_of(const PackedBatch& batch, DeviceBatch& destination) {
  const std::int64_t probes = batch.probes;
  const std::int64_t decoding = batch.decodes() ? probes : 0;  // probes of what only decoding has for each
  if (std::ssize(batch.tokens) % batch.copies() != 0 ||
      std::ssize(batch.target_tokens) % batch.copies() != 0) {
    throw DeviceError("upload: {} tokens and {} target tokens are not as many for each of {} probes",
                      batch.tokens.size(), batch.target_tokens.size(), probes);
  }
  destination.shape = shape_of(batch);
  destination.probes = probes;
  return {{{&destination.tokens, &batch.tokens, probes},
           {&destination.positions, &batch.positions, decoding},
           {&destination.offsets, &batch.offsets, 0},
           {&destination.loss_rows, &batch.loss_rows, 0},
           {&destination.target_rows, &batch.target_rows, 0},
           {&destination.target_tokens, &batch.target_tokens, probes},
           {&destination.cache_rows, &batch.cache_rows, decoding},
           {&destination.prompt_begins, &batch.prompt_begins, decoding},
           {&destination.prompt_lengths, &batch.prompt_lengths, decoding},
           {&destination.draw_keys, &batch.draw_keys, decoding},
           {&destination.draw_places, &batch.draw_places, decoding}}};
}

void HostBackend::upload(const PackedBatch& batch, DeviceBatch& destination) {
  const auto rows = rows_of(batch, destination);
  std::size_t bytes = 0;
  for (const BatchRow& row : rows) bytes += row.values->size() * sizeof(std::int32_t);
  if (destination.storage.bytes() < bytes) destination.storage = allocate(bytes);

  auto* to = static_cast<std::int32_t*>(destination.storage.data());
  for (const BatchRow& row : rows) {
    *row.view = row.at(to);
    to = std::copy(row.values->begin(), row.values->end(), to);
  }
}

void HostBackend::upload(std::span<const Probe> probes, NoiseKind noise, ProbeTable& destination) {
  destination.probes.assign(probes.begin(), probes.end());
  destination.noise = noise;
}

std::vector<ProductOutput> outputs_of(const Product& product, std::size_t first_part, std::span<const View> y,
                                      bool gated) {
  const std::vector<ProductPart>& parts = product.parts;
  std::vector<ProductOutput> outputs;
  std::size_t next = first_part;
  for (const View& view : y) {
    const std::int64_t wanted = gated ? 2 * view.cols : view.cols;
    ProductOutput output{.y = view, .first = next, .count = 0};
    std::int64_t width = 0;
    while (width < wanted && next < parts.size()) {
      width += parts[next].rows;
      ++next;
      ++output.count;
    }
    if (width != wanted) {
      throw DeviceError("product {}: parts from {} on do not fill an output of {} columns", product.name,
                        output.first, view.cols);
    }
    if (gated && (output.count != 2 || parts[output.first].rows != view.cols)) {
      throw DeviceError("product {}: a gated output of {} columns needs two parts of as many rows",
                        product.name, view.cols);
    }
    for (std::size_t i = output.first + 1; i < next; ++i) {
      if (parts[i].row_begin != parts[i - 1].row_begin + parts[i - 1].rows) {
        throw DeviceError("product {}: part {} does not begin where part {} ends", product.name, i, i - 1);
      }
    }
    outputs.push_back(output);
  }
  return outputs;
}

void check_shape(const char* operation, const char* operand, const View& view, std::int64_t rows,
                 std::int64_t cols) {
  if (view.data == nullptr && rows * cols > 0) throw DeviceError("{}: {} has no data", operation, operand);
  if (view.dtype != DType::f32) {
    throw DeviceError("{}: {} is of element type {}, expected F32", operation, operand, name_of(view.dtype));
  }
  if (view.rows != rows || view.cols != cols) {
    throw DeviceError("{}: {} is [{}, {}], expected [{}, {}]", operation, operand, view.rows, view.cols, rows,
                      cols);
  }
}

void check_sharing(const char* operation, const View& output, const View& input) {
  if (output && output.shared() && !input.shared()) {
    throw DeviceError("{}: the probes share an output, but not an input that it depends on", operation);
  }
}

void check_embed(const ProbeTable& table, const DeviceBatch& batch, const View& words, const View& places,
                 std::int64_t position_offset, const View& h) {
  constexpr const char* operation = "embed";
  check_probes(operation, batch, table);
  check_shape(operation, "h", h, batch.tokens.cols, words.cols);
  check_sharing(operation, h, batch.tokens);
  check_indices(operation, "tokens", batch.tokens, words.rows, batch.probes);
  if (places)
    check_indices(operation, "positions", batch.positions, places.rows - position_offset, batch.probes);
}

void check_score(const ProbeTable& table, const DeviceBatch& batch, const Product& head, const View& x,
                 const View& out) {
  constexpr const char* operation = "score";
  check_probes(operation, batch, table);
  check_shape(operation, "x", x, batch.shape.loss_rows, head.in());
  check_shape(operation, "out", out, 1, batch.shape.targets);
  check_sharing(operation, out, x);
  check_sharing(operation, out, batch.target_tokens);
  check_indices(operation, "target_rows", batch.target_rows, batch.shape.loss_rows);
  check_indices(operation, "target_tokens", batch.target_tokens, head.out(), batch.probes);
}

void check_residual_norm(const View& h_in, std::span<const View> deltas, const View& h_out, const View& x) {
  constexpr const char* operation = "residual_norm";
  check_shape(operation, "x", x, h_in.rows, h_in.cols);
  check_sharing(operation, x, h_in);
  if (h_out) check_shape(operation, "h_out", h_out, h_in.rows, h_in.cols);
  if (h_out && h_out.shared() != x.shared()) {
    throw DeviceError("{}: h_out and x are the same sum, but only one of them is shared by the probes",
                      operation);
  }
  for (const View& delta : deltas) {
    check_shape(operation, "a delta", delta, h_in.rows, h_in.cols);
    check_sharing(operation, x, delta);
  }
}

void check_norm_heads(const Norm& norm, std::int64_t head_dim, const View& x) {
  check_shape("norm_heads", "the weight", norm.weight, 1, head_dim);
  check_shape("norm_heads", "x", x, x.rows, x.cols / head_dim * head_dim);
}

void check_gate(const View& gate_up, const View& y) {
  check_shape("gate", "gate_up", gate_up, y.rows, 2 * y.cols);
  if (gate_up.shared() != y.shared()) {
    throw DeviceError("gate: only one of gate_up and y is shared by the probes");
  }
}

void check_attention(const DeviceBatch& batch, const AttentionShape& shape, const View& q, const View& k,
                     const View& v, const View& query_rows, const View& out) {
  const std::int64_t tokens = batch.tokens.cols;
  const std::int64_t queries = query_rows ? query_rows.cols : tokens;
  check_shape("attention", "q", q, queries, shape.heads * shape.head_dim);
  check_shape("attention", "k", k, tokens, shape.kv_heads * shape.head_dim);
  check_shape("attention", "v", v, tokens, shape.kv_heads * shape.head_dim);
  check_shape("attention", "out", out, queries, shape.heads * shape.head_dim);
  if (query_rows) check_indices("attention", "query_rows", query_rows, tokens);
  for (const View& input : {q, k, v}) check_sharing("attention", out, input);
}

void check_indices(const char* operation, const char* operand, const View& indices, std::int64_t limit,
                   std::int64_t probes) {
  if (probes == 0 && !indices.shared())
    throw DeviceError("{}: each probe has {} of its own, expected the same for all", operation, operand);
  for (std::int64_t p = 0; p < (indices.shared() ? 1 : probes); ++p) {
    const std::int32_t* index = integers_of(indices, p);
    for (std::int64_t i = 0; i < indices.cols; ++i) {
      if (index[i] < 0 || index[i] >= limit) {
        throw DeviceError("{}: {}[{}] is {}, expected 0 to {}", operation, operand, i, index[i], limit - 1);
      }
    }
  }
}

void check_probes(const char* operation, const DeviceBatch& batch, const ProbeTable& table) {
  if (batch.probes > 0 && batch.probes != table.count()) {
    throw DeviceError("{}: the batch has tokens for {} probes, but there are {}", operation, batch.probes,
                      table.count());
  }
}

void check_store(const DeviceBatch& batch, const View& k, const View& v, const KeyValues& to) {
  for (const auto& [from, cache] : {std::pair(&k, &to.k), std::pair(&v, &to.v)}) {
    check_shape("store", "k or v", *from, batch.tokens.cols, cache->cols);
    check_shape("store", "the cache", *cache, cache->rows, cache->cols);
    check_sharing("store", *cache, *from);
    check_indices("store", "cache_rows", batch.cache_rows, cache->rows);
  }
  if (batch.cache_rows.cols != batch.tokens.cols)
    throw DeviceError("store: {} rows of the cache for {} tokens", batch.cache_rows.cols, batch.tokens.cols);
}

void check_decode_attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                            const View& q, const View& k, const View& v, const LayerCache& cache,
                            const View& out) {
  constexpr const char* operation = "decode_attention";
  check_probes(operation, batch, table);
  const std::int64_t rows = batch.tokens.cols;
  const std::int64_t width = shape.kv_heads * shape.head_dim;
  check_shape(operation, "q", q, rows, shape.heads * shape.head_dim);
  check_shape(operation, "k", k, rows, width);
  check_shape(operation, "v", v, rows, width);
  check_shape(operation, "out", out, rows, shape.heads * shape.head_dim);
  for (const View* of : {&cache.prompts.k, &cache.prompts.v})
    check_shape(operation, "the cache's prompts", *of, of->rows, width);
  for (const View* of : {&cache.own.k, &cache.own.v})
    check_shape(operation, "the cache's own rows", *of, of->rows, width);
  if (out.shared() || cache.own.k.shared() || cache.own.v.shared() || batch.cache_rows.shared())
    throw DeviceError("{}: the probes share what each has of its own", operation);
  for (std::int64_t p = 0; p < table.count(); ++p) {
    for (std::int64_t t = 0; t < rows; ++t) {
      const std::int32_t row = integers_of(batch.cache_rows, p)[t];
      const SeenRows seen = seen_rows(batch, cache, p, t);
      if (row >= cache.new_tokens || seen.own_begin + seen.own_length > cache.own.k.rows ||
          seen.prompt_begin < 0 || seen.prompt_length < 0 ||
          seen.prompt_begin + seen.prompt_length > cache.prompts.k.rows) {
        throw DeviceError("{}: row {} of probe {} sees {} rows of a prompt from {} on and its own up to {}",
                          operation, t, p, seen.prompt_length, seen.prompt_begin, row);
      }
    }
  }
}

SeenRows seen_rows(const DeviceBatch& batch, const LayerCache& cache, std::int64_t p, std::int64_t t) {
  const std::int64_t row = integers_of(batch.cache_rows, p)[t];
  if (row < 0) return {};
  return {.prompt_begin = integers_of(batch.prompt_begins, p)[t],
          .prompt_length = integers_of(batch.prompt_lengths, p)[t],
          .own_begin = t * cache.new_tokens,
          .own_length = row + 1};
}

void check_next_tokens(const ProbeTable& table, const DeviceBatch& batch, const Product& head, const View& x,
                       const View& out) {
  constexpr const char* operation = "next_tokens";
  check_probes(operation, batch, table);
  check_shape(operation, "x", x, batch.shape.loss_rows, head.in());
  if (!out || out.dtype != DType::i32 || out.rows != 1 || out.cols != batch.shape.targets)
    throw DeviceError("{}: out is [{}, {}], expected a row of {} integers", operation, out.rows, out.cols,
                      batch.shape.targets);
  check_sharing(operation, out, x);
  check_indices(operation, "target_rows", batch.target_rows, batch.shape.loss_rows);
  if (batch.draw_places.cols != out.cols || batch.draw_keys.cols != 2 * out.cols)
    throw DeviceError("{}: {} targets, but draws for {}", operation, out.cols, batch.draw_places.cols);
}

std::uint64_t draw_key_of(const DeviceBatch& batch, std::int64_t p, std::int64_t j) {
  const std::int32_t* const words = integers_of(batch.draw_keys, p) + 2 * j;
  return static_cast<std::uint32_t>(words[0]) | std::uint64_t{static_cast<std::uint32_t>(words[1])} << 32;
}

std::uint32_t draw_place_of(const DeviceBatch& batch, std::int64_t p, std::int64_t j) {
  return static_cast<std::uint32_t>(integers_of(batch.draw_places, p)[j]);
}

void check_perturb(const ProbeTable& table, std::int64_t first, std::int64_t count, const DenseNoise& noise,
                   const View& destination) {
  if (first < 0 || count < 1 || first + count > table.count())
    throw DeviceError("perturb: probes [{}, {}) of {}", first, first + count, table.count());
  for (std::int64_t p = first; p < first + count; ++p) {
    const auto seed = [&](std::int64_t of) { return table.probes[static_cast<std::size_t>(of)].seed; };
    if (seed(p) != seed(first))
      throw DeviceError("perturb: probes {} and {} are of two directions", first, p);
  }
  const View& value = noise.value;
  if (!value || value.row_stride != value.cols) throw DeviceError("perturb: the trainable is not dense");
  if (value.rows != destination.rows || value.cols != destination.cols || !destination ||
      (count > 1 && destination.shared())) {
    throw DeviceError("perturb: the destination is [{}, {}], expected [{}, {}] for each of {}",
                      destination.rows, destination.cols, value.rows, value.cols, count);
  }
}

void check_split_heads(const AttentionShape& shape, const View& x, const View& out) {
  if (shape.kv_heads != shape.heads)
    throw DeviceError("split_heads: {} heads of keys, expected {}", shape.kv_heads, shape.heads);
  for (const View& view : {x, out})
    check_shape("split_heads", "x or out", view, x.rows, 3 * shape.heads * shape.head_dim);
  check_sharing("split_heads", out, x);
}

void split_row(const AttentionShape& shape, const float* x, float* out) {
  for (std::int64_t head = 0; head < shape.heads; ++head) {
    for (std::int64_t part = 0; part < 3; ++part) {
      std::copy_n(x, shape.head_dim, out + (part * shape.heads + head) * shape.head_dim);
      x += shape.head_dim;
    }
  }
}

}  // namespace mezzo
