// How a forward begins and ends: embeddings and positions, and the projections of embeddings that are
// narrower than the residual stream (OPT-350m).
#include "forward.h"

namespace mezzo {

View Forward::embed_narrow() {
  const View embedded = take_input(0, shape_.tokens, weights_.product(*spec_.project_in));
  if (backend_ != nullptr)
    backend_->embed(one_probe_, *batch_, weights_.embedding(spec_.embedding).codes, View{}, 0, embedded);
  return embedded;
}

void Forward::start(const ProbeTable& table, const State& state) {
  const View& h = spec_.norm_after_sum ? state.x : state.h;
  const std::int64_t offset = spec_.positions ? spec_.at<EmbeddingSpec>(*spec_.positions).offset : 0;
  const View positions = spec_.positions ? weights_.embedding(*spec_.positions).codes : View{};
  if (spec_.project_in) {
    const Product& projection = weights_.product(*spec_.project_in);
    const std::size_t mark = arena_.mark();
    const View projected = take(projection.perturbed() ? table.count() : 0, shape_.tokens, spec_.hidden);
    const View places = take(0, shape_.tokens, spec_.hidden);
    if (backend_ != nullptr) {
      backend_->product(table, projection, 0, embedded_, {{projected}}, {});
      backend_->gather(table, positions.row_range(offset, positions.rows - offset), batch_->positions,
                       places);
      // The operation norms what it sums; where h is x, that is of no use and goes to the h that is not read.
      const bool norms = !spec_.norm_after_sum;
      const Norm& norm = weights_.norm(spec_.blocks.front().norm);
      backend_->residual_norm(table, places, {{projected}}, h, norm, norms ? state.x : state.h);
    }
    arena_.release_to(mark);
    return;
  }
  if (backend_ == nullptr) return;
  backend_->embed(table, *batch_, weights_.embedding(spec_.embedding).codes, positions, offset, h);
  if (const float scale = spec_.at<EmbeddingSpec>(spec_.embedding).scale; scale != 1.0f)
    backend_->scale(table, scale, h);
  if (!spec_.norm_after_sum) backend_->residual_norm(table, h, {}, View{}, norm_before(0), state.x);
}

View Forward::projected_out(const ProbeTable& table, const View& x) {
  const Product& projection = weights_.product(*spec_.project_out);
  const std::int64_t probes = x.shared() && !projection.perturbed() ? 0 : table.count();
  const View y = take_input(probes, x.rows, weights_.product(spec_.head));
  if (backend_ != nullptr) backend_->product(table, projection, 0, x, {{y}}, {});
  return y;
}

}  // namespace mezzo
