#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mezzo/backend/arena.h"
#include "mezzo/backend/backend.h"
#include "mezzo/model/description.h"
#include "weights.h"

namespace mezzo {

/// One forward over an arena: the code that runs it and, without a backend, the code that measures it.
///
/// The forward is a row of blocks, attention and MLP of each layer in turn (one block a layer with a parallel
/// residual). Between two blocks stand the residual stream and its norm x. The first perturbed block is where
/// begin() ends.
class Forward {
 public:
  /// Takes the arena's first places for what lasts: tables of positions [0, longest). `backend` null: only
  /// measures.
  Forward(const DevicePlan& sizes, Backend* backend, const Description& description,
          const DecoderWeights& weights, Arena arena, std::int64_t longest);

  std::int64_t first_perturbed_layer() const { return first_perturbed_block() / blocks_per_layer(); }

  /// Runs what all probes share. `batch` must stay until the last finish() of it.
  void begin(const DeviceBatch& batch);
  /// The head's input for one group, [R, H].
  View finish(const ProbeTable& table);
  /// Bytes of the arena that begin() and finish() take for such a batch and so many probes.
  std::size_t measure(const BatchShape& largest, std::int64_t probes);

  bool begun() const { return batch_ != nullptr; }
  const DeviceBatch& batch() const { return *batch_; }
  std::size_t high_water() const { return arena_.high_water(); }
  /// All that finish() and what reads its result depend on, but for what lies in the device's memory.
  std::vector<std::uint64_t> key(const ProbeTable& table, const View& out) const;

  static AttentionShape attention_shape(const Description& d);
  static Epilogue mlp_epilogue(const Description& d);

 private:
  using Layer = DecoderWeights::Layer;

  /// The residual stream is h + delta: what attention adds is stored with what the MLP adds, not by itself,
  /// since a sum costs more to write and read than its terms.
  struct State {
    View h;      ///< [T or R, H], in the residual dtype
    View delta;  ///< [T or R, H]; no rows: none
    View x;      ///< [T or R, H], the next block's input; the last one's is the head's
  };

  // ---- the order of blocks
  std::int64_t blocks_per_layer() const { return d_.parallel_residual ? 1 : 2; }
  std::int64_t blocks() const { return d_.layers * blocks_per_layer(); }
  /// The first block that depends on the probe, or blocks().
  std::int64_t first_perturbed_block() const;
  /// The norm whose output block `block` reads; the final one behind the last.
  const Norm& norm_before(std::int64_t block) const;

  // ---- activations; `probes` 0: shared
  View take(std::int64_t probes, std::int64_t rows, std::int64_t cols);
  View take_input(std::int64_t probes, std::int64_t rows, const Product& product);
  /// h and x of `rows` rows. x may feed any block: its rows have room for the widest tail.
  State take_state(std::int64_t probes, std::int64_t rows);
  /// A matrix of `rows` rows, else as x: shared or not, and as wide.
  View take_like(const View& x, std::int64_t rows, const ProbeTable& table);
  /// The rotary tables.
  void take_rope(std::int64_t longest);

  void begin();
  /// Blocks [first, last). The outputs belong to `probes` probes (0: shared); `in` may be written over if it
  /// `is_own`.
  State run(std::int64_t first, std::int64_t last, State in, bool is_own, const ProbeTable& table,
            std::int64_t probes);
  /// What attention adds to the residual stream, on top of the arena. `x` are all rows; `x_read`, where only
  /// rows with a loss go on, those.
  View attention_delta(const Layer& layer, const View& x, const View& x_read, bool loss_rows_only,
                       const ProbeTable& table);
  /// What the MLP adds, in `place` if that is the probes' own or shared as it is. `place` may be x.
  View mlp_delta(const Layer& layer, const View& x, const View& place, const ProbeTable& table);

  const DevicePlan& sizes_;  ///< asked for strides and dtypes
  Backend* backend_;         ///< null: only measure
  const Description& d_;
  const DecoderWeights& weights_;
  Arena arena_;
  Rope rope_ = {};
  ProbeTable one_probe_ = {};  ///< unperturbed, for what all probes share
  const DeviceBatch* batch_ = nullptr;
  BatchShape shape_ = {};
  State shared_ = {};             ///< what begin() left
  std::size_t before_begin_ = 0;  ///< marks of the arena
  std::size_t after_begin_ = 0;
};

}  // namespace mezzo
