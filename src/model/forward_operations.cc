// The forward's operations over parts of the model. Where tensors of a part are trained themselves, each
// probe has a part of its own: it is made in scratch, used and forgotten, so that one part at a time is there
// twice, for the two probes of a direction.
#include <algorithm>

#include "forward.h"
#include "mezzo/core/error.h"

namespace mezzo {
namespace {

constexpr std::int64_t most_made = 2;  // probes whose parts are made at once: those of a direction

/// Room for a tensor of `made` probes, without data: the storage's rows, not the tensor's alone.
View room_for(const View& tensor, const TrainedTensor& trained, std::int64_t made) {
  View room = tensor;
  room.data = nullptr;
  room.probe_stride = made > 1 ? trained.stored_rows * tensor.row_stride : 0;
  return room;
}

std::size_t bytes_of(const View& tensor, const TrainedTensor& trained) {
  const auto elements = static_cast<std::size_t>(most_made * trained.stored_rows * tensor.row_stride);
  return padded(elements * size_of(tensor.dtype));
}

View place_of(const View& view, const TrainedTensor& tensor, const TensorPiece& piece) {
  return tensor.vector ? view.columns(piece.first, piece.count) : view.row_range(piece.first, piece.count);
}

}  // namespace

class Forward::Share {
 public:
  Share() = default;
  explicit Share(std::int64_t probe) : probe_(probe) {}
  View operator()(const View& of) const { return probe_ && of ? of.probe(*probe_) : of; }
  /// `room` takes a batch of the one probe.
  const DeviceBatch& operator()(const DeviceBatch& of, DeviceBatch& room) const {
    if (!probe_ || of.probes == 0) return of;
    return room = of_probe(of, *probe_);
  }

 private:
  std::optional<std::int64_t> probe_;  ///< none: all
};

class Forward::Operands {
 public:
  Operands(const DecoderWeights& weights, std::span<const PartIndex> parts) : weights_(weights) {
    for (const PartIndex part : parts) {
      if (!weights.trained(part).empty()) own_.push_back({part, weights.operand(part)});
    }
  }

  const Weight& embedding(PartIndex part) const { return std::get<Weight>(at(part)); }
  const Norm& norm(PartIndex part) const { return std::get<Norm>(at(part)); }
  const Product& product(PartIndex part) const { return std::get<Product>(at(part)); }

  bool are_shared() const { return own_.empty(); }

  /// Calls f(view, tensor, as it was loaded) for the views that are made for each probe.
  template <typename F>
  void each_made(F f) {
    for (auto& [part, operand] : own_) {
      Operand loaded = weights_.operand(part);
      for (const TrainedTensor& tensor : weights_.trained(part))
        f(*tensors_of(operand).at(tensor.place), tensor, *tensors_of(loaded).at(tensor.place));
    }
  }

 private:
  const Operand& at(PartIndex part) const {
    for (const auto& [index, operand] : own_) {
      if (index == part) return operand;
    }
    return weights_.operand(part);
  }

  const DecoderWeights& weights_;
  std::vector<std::pair<PartIndex, Operand>> own_;
};

std::size_t Forward::operand_bytes() const {
  const auto bytes = [&](std::span<const PartIndex> parts) {
    std::size_t sum = 0;
    Operands(weights_, parts).each_made([&](const View& view, const TrainedTensor& tensor, const View&) {
      sum += bytes_of(view, tensor);
    });
    return sum;
  };
  std::size_t most = 0;
  for (PartIndex part = 0; part < spec_.parts.size(); ++part) most = std::max(most, bytes({{part}}));
  if (spec_.positions) most = std::max(most, bytes({{spec_.embedding, *spec_.positions}}));
  return most;
}

void Forward::enqueue(const ProbeTable& table, std::span<const PartIndex> parts, const Operation& operation) {
  if (backend_ == nullptr) return;
  Operands operands(weights_, parts);
  if (operands.are_shared()) return operation(table, operands, Share());
  for (std::int64_t first = 0, count = 0; first < table.count(); first += count) {
    const auto seed_at = [&](std::int64_t p) { return table.probes[static_cast<std::size_t>(p)].seed; };
    for (count = 1; count < most_made && first + count < table.count(); ++count) {
      if (seed_at(first + count) != seed_at(first)) break;
    }
    std::vector<View> made;
    auto* next = operands_.as<std::byte>();
    operands.each_made([&](const View& view, const TrainedTensor& tensor, const View& loaded) {
      View& room = made.emplace_back(room_for(view, tensor, count));
      room.data = next;
      next += bytes_of(view, tensor);
      for (const TensorPiece& piece : tensor.pieces) {
        const View place = place_of(room, tensor, piece);
        if (piece.noise) {
          backend_->perturb(table, first, count, *piece.noise, piece.offset, place);
        } else {
          for (std::int64_t i = 0; i < count; ++i)
            backend_->assign(place.probe(i), place_of(loaded, tensor, piece));
        }
      }
    });
    for (std::int64_t i = 0; i < count; ++i) {
      std::size_t at = 0;
      operands.each_made(
          [&](View& view, const TrainedTensor&, const View&) { view = made.at(at++).probe(i); });
      operation(one_probe_, operands, Share(first + i));
    }
  }
}

void Forward::product(const ProbeTable& table, PartIndex part, std::size_t first_part, const View& x,
                      std::span<const View> y, const Epilogue& epilogue) {
  enqueue(table, {{part}}, [&](const ProbeTable& probes, const Operands& operands, const Share& share) {
    std::vector<View> own;
    for (const View& each : y) own.push_back(share(each));
    backend_->product(probes, operands.product(part), first_part, share(x), own, epilogue);
  });
}

void Forward::residual_norm(const ProbeTable& table, const View& h_in, std::span<const View> deltas,
                            const View& h_out, PartIndex norm, const View& x) {
  enqueue(table, {{norm}}, [&](const ProbeTable& probes, const Operands& operands, const Share& share) {
    std::vector<View> own;
    for (const View& each : deltas) own.push_back(share(each));
    backend_->residual_norm(probes, share(h_in), own, share(h_out), operands.norm(norm), share(x));
  });
}

void Forward::norm_heads(const ProbeTable& table, PartIndex norm, std::int64_t head_dim, const View& x) {
  enqueue(table, {{norm}}, [&](const ProbeTable& probes, const Operands& operands, const Share& share) {
    backend_->norm_heads(probes, operands.norm(norm), head_dim, share(x));
  });
}

void Forward::embed(const ProbeTable& table, const std::optional<PartIndex>& positions, const View& h) {
  std::vector<PartIndex> parts = {spec_.embedding};
  if (positions) parts.push_back(*positions);
  enqueue(table, parts, [&](const ProbeTable& probes, const Operands& operands, const Share& share) {
    const View places = positions ? operands.embedding(*positions).codes : View{};
    const std::int64_t offset = positions ? spec_.at<EmbeddingSpec>(*positions).offset : 0;
    DeviceBatch own;
    backend_->embed(probes, share(*batch_, own), operands.embedding(spec_.embedding).codes, places, offset,
                    share(h));
  });
}

void Forward::embed_positions(const ProbeTable& table, PartIndex positions, const View& out) {
  const std::int64_t offset = spec_.at<EmbeddingSpec>(positions).offset;
  enqueue(table, {{positions}}, [&](const ProbeTable& probes, const Operands& operands, const Share& share) {
    const View& places = operands.embedding(positions).codes;
    DeviceBatch own;
    backend_->gather(probes, places.row_range(offset, places.rows - offset), share(*batch_, own).positions,
                     share(out));
  });
}

void Forward::score(const ProbeTable& table, const View& out) {
  const View x = finish(table);
  enqueue(table, {{spec_.head}}, [&](const ProbeTable& probes, const Operands& operands, const Share& share) {
    backend_->score(probes, *batch_, operands.product(spec_.head), share(x), share(out));
  });
}

void Forward::next_tokens(const ProbeTable& table, const Sampling& sampling, const View& out) {
  const View x = finish(table);
  enqueue(table, {{spec_.head}}, [&](const ProbeTable& probes, const Operands& operands, const Share& share) {
    DeviceBatch own;
    backend_->next_tokens(probes, share(*batch_, own), operands.product(spec_.head), share(x), sampling,
                          share(out));
  });
}

void Forward::logits(const ProbeTable& table, const View& out) {
  const View x = finish(table);
  product(table, spec_.head, 0, x, {{out}}, {});
  const float cap = weights_.product(spec_.head).score_cap;
  if (cap != 0.0f && backend_ != nullptr) backend_->soft_cap(table, cap, out);
}

}  // namespace mezzo
