// The cpu backend's forward but for products: embedding, norms, rotary positions, attention, the head.
#include <algorithm>

#include "cpu_backend.h"
#include "kernels/cpu/activation.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/partition.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/score.h"
#include "kernels/reference/sampling.h"
#include "mezzo/core/error.h"

namespace mezzo {

using cpu::Partition;

void CpuBackend::embed(const ProbeTable& table, const DeviceBatch& batch, View words, View places,
                       std::int64_t position_offset, View h) {
  check_embed(table, batch, words, places, position_offset, h);
  for_rows(copies_of(h, table), h.rows, [&](std::int64_t p, std::int64_t t) {
    float* to = rows_of(h, p).row(t);
    const float* word = rows_of(words, 0).row(integers_of(batch.tokens, p)[t]);
    if (places) {
      const std::int64_t place = integers_of(batch.positions, p)[t] + position_offset;
      cpu::add(word, rows_of(places, 0).row(place), h.cols, to);
    } else {
      std::copy(word, word + h.cols, to);
    }
  });
}

void CpuBackend::scale(const ProbeTable& table, float factor, View h) {
  for_rows(copies_of(h, table), h.rows, [&](std::int64_t p, std::int64_t t) {
    float* const row = rows_of(h, p).row(t);
    for (std::int64_t j = 0; j < h.cols; ++j) row[j] *= factor;
  });
}

void CpuBackend::soft_cap(const ProbeTable& table, float cap, View x) {
  for_rows(copies_of(x, table), x.rows,
           [&](std::int64_t p, std::int64_t t) { cpu::soft_cap(rows_of(x, p).row(t), x.cols, 1.0f, cap); });
}

void CpuBackend::residual_norm(const ProbeTable& table, View h_in, std::span<const View> deltas, View h_out,
                               const Norm& norm, View x) {
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

void CpuBackend::norm_heads(const ProbeTable& table, const Norm& norm, std::int64_t head_dim, View x) {
  check_norm_heads(norm, head_dim, x);
  // In place: a head's sum has been read before the head is written to.
  for (std::int64_t column = 0; column < x.cols; column += head_dim) {
    const View head = x.columns(column, head_dim);
    residual_norm(table, head, {}, View{}, norm, head);
  }
}

void CpuBackend::rotate(const ProbeTable& table, const DeviceBatch& batch, const Rope& rope, View row_index,
                        std::int64_t head_dim, View x) {
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

void CpuBackend::attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                           const Rope* rope, View q, View k, View v, View query_rows, View out) {
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
                {rows_of(v, p).row(begin) + key_column, v.row_stride}, length, shape.head_dim,
                {.scale = shape.scale, .window = shape.window, .soft_cap = shape.soft_cap},
                {rows_of(out, p).row(first) + query_column, out.row_stride}, scratch);
  });
}

void CpuBackend::decode_attention(const ProbeTable& table, const DeviceBatch& batch,
                                  const AttentionShape& shape, const Rope* rope, View q, View k, View v,
                                  const LayerCache& cache, View out) {
  check_decode_attention(table, batch, shape, q, k, v, cache, out);
  if (rope != nullptr)
    check_indices("rotate", "positions", batch.positions, rope->cosines.rows, batch.probes);
  const std::int64_t group = shape.heads / shape.kv_heads;
  for_rows(table.count(), out.rows, [&](std::int64_t p, std::int64_t t) {
    if (integers_of(batch.cache_rows, p)[t] < 0) return;
    const std::int64_t own = t * cache.new_tokens + integers_of(batch.cache_rows, p)[t];
    if (rope != nullptr) {
      const std::int64_t position = integers_of(batch.positions, p)[t];
      const auto rotate_row =
          rope->style == RopeStyle::half_split ? cpu::rotate_half_split : cpu::rotate_interleaved;
      for (const auto& [heads, x] : {std::pair(shape.heads, q), std::pair(shape.kv_heads, k)})
        rotate_row(rows_of(x, p).row(t), heads, shape.head_dim, rope->dims,
                   rows_of(rope->cosines, 0).row(position), rows_of(rope->sines, 0).row(position));
    }
    std::copy_n(rows_of(k, p).row(t), k.cols, rows_of(cache.own.k, p).row(own));
    std::copy_n(rows_of(v, p).row(t), v.cols, rows_of(cache.own.v, p).row(own));
  });
  const std::int64_t items = table.count() * out.rows;
  parallel(items, [&](std::int64_t item, int thread) {
    const std::int64_t p = item / out.rows;
    const std::int64_t t = item % out.rows;
    const SeenRows seen = seen_rows(batch, cache, p, t);
    check_scratch("decode_attention", "a thread's tile", scratch_.tiles.cols,
                  cpu::attend_row_scratch(seen.length()));
    for (std::int64_t head = 0; head < shape.kv_heads; ++head) {
      const auto rows = [&](const KeyValues& of, std::int64_t begin, std::int64_t count) {
        const auto piece = [&](const View& view) -> Rows<const float> {
          return {rows_of(view, p).row(begin) + head * shape.head_dim, view.row_stride};
        };
        return cpu::KeyRows{.k = piece(of.k), .v = piece(of.v), .count = count};
      };
      const cpu::KeyRows pieces[] = {rows(cache.prompts, seen.prompt_begin, seen.prompt_length),
                                     rows(cache.own, seen.own_begin, seen.own_length)};
      const std::int64_t column = head * group * shape.head_dim;
      cpu::attend_row(rows_of(q, p).row(t) + column, group, pieces, shape.head_dim,
                      {.scale = shape.scale, .window = shape.window, .soft_cap = shape.soft_cap},
                      rows_of(out, p).row(t) + column, tile(thread));
    }
  });
}

void CpuBackend::next_tokens(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
                             const Sampling& sampling, View out) {
  check_next_tokens(table, batch, head, x, out);
  const std::int64_t copies = copies_of(out, table);
  RowBlocks blocks;
  for (std::int64_t p = 0; p < copies; ++p) add_rows(blocks, p, x.rows);
  check_scratch("next_tokens", "a thread's tile", scratch_.tiles.cols, blocks.most_rows * head.out());
  const std::int32_t* const read = batch.target_rows.as<std::int32_t>();  // ascending
  parallel(std::ssize(blocks.all), [&](std::int64_t item, int thread) {
    const RowBlock& block = blocks.all[static_cast<std::size_t>(item)];
    const std::int32_t* const targets_end = read + batch.shape.targets;
    const std::int32_t* const begin = std::lower_bound(read, targets_end, block.first);
    const std::int32_t* const end = std::lower_bound(begin, targets_end, block.first + block.rows);
    if (begin == end) return;
    const Rows<float> logits{tile(thread), head.out()};
    cpu::linear({rows_of(x, block.probe).row(block.first), x.row_stride}, block.rows, head.in(),
                {rows_of(head.weight.codes, 0).data, head.weight.codes.row_stride}, head.out(), logits);
    if (head.bias) cpu::add_bias(head.bias.as<float>(), block.rows, head.out(), logits);
    for (const std::int32_t* target = begin; target != end; ++target) {
      const Rows<float> row{logits.row(*target - block.first), 0};
      const bool first = target == begin || *target != *(target - 1);
      if (first && head.score_cap != 0.0f) cpu::soft_cap(row.data, head.out(), 1.0f, head.score_cap);
      const std::int64_t j = target - read;
      integers_of(out, block.probe)[j] =
          reference::choose_token(row.data, head.out(), sampling, draw_key_of(batch, block.probe, j),
                                  draw_place_of(batch, block.probe, j));
    }
  });
}

void CpuBackend::gather(const ProbeTable& table, View x, View rows, View out) {
  check_shape("gather", "out", out, rows.cols, x.cols);
  check_sharing("gather", out, x);
  check_sharing("gather", out, rows);
  check_indices("gather", "rows", rows, x.rows, table.count());
  for_rows(copies_of(out, table), out.rows, [&](std::int64_t p, std::int64_t i) {
    const float* from = rows_of(x, p).row(integers_of(rows, p)[i]);
    std::copy(from, from + x.cols, rows_of(out, p).row(i));
  });
}

void CpuBackend::score(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
                       View out) {
  const std::int64_t loss_rows = batch.shape.loss_rows;
  const std::int64_t targets = batch.shape.targets;
  check_score(table, batch, head, x, out);
  const auto* read = batch.target_rows.as<std::int32_t>();
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
                  {rows_of(head.weight.codes, 0).row(from), head.weight.codes.row_stride}, words, logits);
      if (head.bias) cpu::add_bias(head.bias.as<float>() + from, rows, words, logits);
      for (std::int64_t i = 0; i < rows; ++i) {
        if (head.score_cap != 0.0f) cpu::soft_cap(logits.row(i), words, 1.0f, head.score_cap);
        sums[(p * rows + i) * chunks.parts() + chunk] = cpu::exp_sum(logits.row(i), words);
      }
      const std::int32_t* token = integers_of(batch.target_tokens, p);
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

void CpuBackend::split_heads(const ProbeTable& table, const AttentionShape& shape, View x, View out) {
  check_split_heads(shape, x, out);
  for_rows(copies_of(out, table), out.rows, [&](std::int64_t p, std::int64_t t) {
    split_row(shape, rows_of(x, p).row(t), rows_of(out, p).row(t));
  });
}

}  // namespace mezzo
