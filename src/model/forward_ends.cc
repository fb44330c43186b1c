// How a forward begins and ends: embeddings and positions, and the projections of embeddings that are
// narrower than the residual stream (OPT-350m).
#include "forward.h"

namespace mezzo {

View Forward::embed_narrow(const ProbeTable& table, std::int64_t probes) {
  const View embedded = take_input(probes, shape_.tokens, weights_.product(*spec_.project_in));
  embed(table, {}, embedded);
  return embedded;
}

void Forward::start(const ProbeTable& table, const State& state) {
  const View& h = spec_.norm_after_sum ? state.x : state.h;
  if (spec_.project_in) {
    const std::size_t mark = arena_.mark();
    const bool own = decodes_ || weights_.trains_tensors();  // a probe's tokens, or their rows
    const View narrow = own ? embed_narrow(table, table.count()) : embedded_;
    const View projected = take(starts_in_each_probe() ? table.count() : 0, shape_.tokens, spec_.hidden);
    const View places = take(own ? table.count() : 0, shape_.tokens, spec_.hidden);
    product(table, *spec_.project_in, 0, narrow, {{projected}}, {});
    embed_positions(table, *spec_.positions, places);
    // The operation norms what it sums; where h is x, that is of no use and goes to the h that is not read.
    const bool norms = !spec_.norm_after_sum;
    residual_norm(table, places, {{projected}}, h, spec_.blocks.front().norm, norms ? state.x : state.h);
    arena_.release_to(mark);
    return;
  }
  embed(table, spec_.positions, h);
  const float scale = spec_.at<EmbeddingSpec>(spec_.embedding).scale;
  if (scale != 1.0f && backend_ != nullptr) backend_->scale(table, scale, h);
  if (!spec_.norm_after_sum) residual_norm(table, h, {}, View{}, norm_before(0), state.x);
}

View Forward::projected_out(const ProbeTable& table, const View& x) {
  const Product& projection = weights_.product(*spec_.project_out);
  const std::int64_t probes = x.shared() && !projection.perturbed() ? 0 : table.count();
  const View y = take_input(probes, x.rows, weights_.product(spec_.head));
  product(table, *spec_.project_out, 0, x, {{y}}, {});
  return y;
}

}  // namespace mezzo
