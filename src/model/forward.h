#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "mezzo/backend/arena.h"
#include "mezzo/backend/backend.h"
#include "mezzo/model/layers.h"
#include "weights.h"

namespace mezzo {

inline const AttentionSpec* attention_of(const BlockSpec& block) {
  return std::get_if<AttentionSpec>(&block.core);
}

/// Error unless this forward does all that the list asks for. The list can say more than the forward does: a
/// family that asks for it is to bring the maths along.
void check_served(const DecoderSpec& spec);
/// DeviceError unless the device, too, does it.
void check_served(const DecoderSpec& spec, const DevicePlan& plan);

/// One forward over an arena: the code that runs it and, without a backend, the code that measures it.
///
/// Between two blocks stand the residual stream and its norm x, which the next block reads. begin() ends at
/// the first block that depends on the probe, finish() goes on from there.
class Forward {
 public:
  /// What lasts from one forward to the next takes the arena's first places: rotary tables of positions
  /// [0, longest), room for the parts that are made for each probe, and a cache for so many probes. `backend`
  /// null: only measures. All must outlive the forward.
  Forward(const DevicePlan& sizes, Backend* backend, const DecoderSpec& spec, const DecoderWeights& weights,
          Arena arena, std::int64_t longest, const CacheShape& cache, std::int64_t cache_probes);

  /// The first block that depends on the probe, or the number of blocks.
  std::size_t first_perturbed_block() const;

  /// Runs what all probes share. `batch` must stay until the last score() or logits() of it.
  void begin(const DeviceBatch& batch);
  /// The head's input for one group, [R, H] for each probe.
  View finish(const ProbeTable& table);
  /// The log-probabilities of the batch's targets for one group: Backend::score().
  void score(const ProbeTable& table, const View& out);
  /// The logits of the rows with a loss, [R, vocabulary] for each probe.
  void logits(const ProbeTable& table, const View& out);
  /// The tokens that come behind the batch's targets for one group: Backend::next_tokens(). Of a batch of
  /// prompts behind begin(), whose keys and values stay in the cache; one that decodes needs no begin().
  void next_tokens(const ProbeTable& table, const Sampling& sampling, const View& out);
  /// Takes a batch that decodes.
  void take_decoding(const DeviceBatch& batch);
  /// Bytes of the arena that begin() and score() take for such a batch and so many probes, and, where it has
  /// a cache, next_tokens() in place of score(), and decoding.
  std::size_t measure(const BatchShape& largest, std::int64_t probes);

  bool begun() const { return batch_ != nullptr; }
  const DeviceBatch& batch() const { return *batch_; }
  std::size_t high_water() const { return arena_.high_water(); }
  /// All that score() or next_tokens() depends on, but for what lies in the device's memory.
  std::vector<std::uint64_t> key(const ProbeTable& table, const View& out) const;

 private:
  /// The residual stream is h plus the deltas: what attention adds is stored with what the MLP adds, not by
  /// itself, since a sum costs more to write and read than its terms.
  struct State {
    View h;                    ///< [T or R, H], in the residual dtype
    std::vector<View> deltas;  ///< [T or R, H] each, none or one between two blocks
    View x;                    ///< [T or R, H], the next block's input; the last one's is the head's
  };

  /// What a probe reads or writes of operands that lie one behind the other, a matrix a probe.
  class Share;
  /// The parts that an operation takes.
  class Operands;
  using Operation = std::function<void(const ProbeTable&, const Operands&, const Share&)>;

  /// The norm of the residual stream behind block `block` - 1: what block `block`, or the head, reads.
  PartIndex norm_before(std::size_t block) const;
  /// Whether what all blocks read depends on the probe: its tokens do, the embedding's projection is
  /// perturbed, or tensors are trained themselves, which then may lie anywhere.
  bool starts_in_each_probe() const {
    return decodes_ || weights_.trains_tensors() ||
           (spec_.project_in && weights_.product(*spec_.project_in).perturbed());
  }
  /// Where a block's delta may lie until its sum is there.
  const View& place_of_delta(const State& own) const { return spec_.norm_after_sum ? own.h : own.x; }
  bool is_parallel(std::size_t block) const {
    return block < spec_.blocks.size() && spec_.blocks[block].parallel;
  }
  const Epilogue& epilogue_of(PartIndex product) const { return spec_.at<ProductSpec>(product).epilogue; }
  /// Whether the block behind reads the same x: it is parallel and has no norm of its own.
  bool reads_x_of(std::size_t block) const;
  /// Whether a module of the input product gives queries and nothing else.
  bool has_queries_apart(const BlockSpec& block, const AttentionSpec& attention) const;

  // ---- activations; `probes` 0: shared
  View take(std::int64_t probes, std::int64_t rows, std::int64_t cols);
  View take_input(std::int64_t probes, std::int64_t rows, const Product& product);
  /// h and x of `rows` rows. x may feed any block: its rows have room for the widest tail.
  State take_state(std::int64_t probes, std::int64_t rows);
  /// A matrix of `rows` rows, else as x: shared or not, and as wide.
  View take_like(const View& x, std::int64_t rows, const ProbeTable& table);
  void take_ropes(std::int64_t longest);
  void take_cache(const CacheShape& shape, std::int64_t probes);

  // ---- operations over parts: forward_operations.cc. Nothing is enqueued while only measuring.
  /// Enqueues an operation that takes `parts`: once for all probes or, where some of their tensors are
  /// trained themselves, once for each probe with its own.
  std::size_t operand_bytes() const;  ///< of what is made for it
  void enqueue(const ProbeTable& table, std::span<const PartIndex> parts, const Operation& operation);
  void product(const ProbeTable& table, PartIndex product, std::size_t first_part, const View& x,
               std::span<const View> y, const Epilogue& epilogue);
  void product(const ProbeTable& table, PartIndex part, const View& x, const View& y) {
    product(table, part, 0, x, {{y}}, epilogue_of(part));
  }
  void residual_norm(const ProbeTable& table, const View& h_in, std::span<const View> deltas,
                     const View& h_out, PartIndex norm, const View& x);
  void norm_heads(const ProbeTable& table, PartIndex norm, std::int64_t head_dim, const View& x);
  /// Tokens' rows, and positions' where `positions` asks for them.
  void embed(const ProbeTable& table, const std::optional<PartIndex>& positions, const View& h);
  /// Positions' rows alone.
  void embed_positions(const ProbeTable& table, PartIndex positions, const View& out);

  void begin();
  /// Tokens' rows of an embedding that is narrower than h, [T, width].
  View embed_narrow(const ProbeTable& table, std::int64_t probes);
  /// h and x before the first block.
  void start(const ProbeTable& table, const State& state);
  /// The head's input where that is narrower than x.
  View projected_out(const ProbeTable& table, const View& x);
  /// Blocks [first, last). The outputs belong to `probes` probes (0: shared); `in` may be written over if it
  /// `is_own`.
  State run(std::size_t first, std::size_t last, State in, bool is_own, const ProbeTable& table,
            std::int64_t probes);
  /// What attention adds to the residual stream, on top of the arena. `x` are all rows; `x_read`, where only
  /// rows with a loss go on, those.
  View attention_delta(std::size_t index, const AttentionSpec& attention, const View& x, const View& x_read,
                       bool loss_rows_only, const ProbeTable& table);
  /// The operation itself: over whole sequences, whose keys and values a batch of prompts leaves in the
  /// cache, or one of decoding.
  void attend(std::size_t index, const AttentionSpec& attention, const View& q, const View& k, const View& v,
              const View& query_rows, const View& out, const ProbeTable& table);
  /// What the MLP adds, in `place` if that is the probes' own or shared as it is. `place` may be x.
  View mlp_delta(const BlockSpec& block, const View& x, const View& place, const ProbeTable& table);
  /// The same of a mixture of experts.
  View mixture_delta(const BlockSpec& block, const MixtureSpec& mixture, const View& x, const View& place,
                     const ProbeTable& table);
  Routing take_routing(const RoutingRule& rule, std::int64_t probes, std::int64_t rows);

  const DevicePlan& sizes_;  ///< asked for strides and dtypes
  Backend* backend_;         ///< null: only measure
  const DecoderSpec& spec_;
  const DecoderWeights& weights_;
  Arena arena_;
  std::size_t last_attention_ = 0;  ///< the block behind whose keys and values only rows with a loss go on
  std::vector<Rope> ropes_;         ///< of spec_.ropes
  View operands_ = {};              ///< operand_bytes() of the arena, one row
  std::vector<LayerCache> caches_;  ///< of each block; without data where it is none of attention
  bool decodes_ = false;            ///< the batch does
  ProbeTable one_probe_ = {};       ///< unperturbed, for what all probes share
  const DeviceBatch* batch_ = nullptr;
  BatchShape shape_ = {};
  View embedded_ = {};            ///< embed_narrow()'s, where all probes share it
  State shared_ = {};             ///< what begin() left
  std::size_t before_begin_ = 0;  ///< marks of the arena
  std::size_t after_begin_ = 0;
};

}  // namespace mezzo
