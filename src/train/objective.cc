#include "mezzo/train/objective.h"

namespace mezzo {

namespace {

class Likelihood final : public Objective {
 public:
  explicit Likelihood(LossRule rule) : rule_(rule) {}

  BatchShape shape_of(const Example& example) const override {
    const Example* one = &example;
    return mezzo::shape_of(pack({&one, 1}, rule_, all_options()).packed);
  }
  std::int64_t tokens_of(const Example& example) const override {
    return packed_tokens(example, all_options());
  }
  void evaluate(ProbeRunner& runner, const StepWork& work, std::span<const WorkItem> items,
                const SlotSink& sink) const override;

 private:
  bool all_options() const { return reads_all_options(rule_.loss); }

  LossRule rule_;
};

void Likelihood::evaluate(ProbeRunner& runner, const StepWork& work, std::span<const WorkItem> items,
                          const SlotSink& sink) const {
  std::int64_t begun_slice = -1;
  LossBatch batch;
  for (const WorkItem& item : items) {
    if (item.slice != begun_slice) {
      batch = pack(work.slices[static_cast<std::size_t>(item.slice)], rule_, all_options());
      runner.begin(batch.packed);
      begun_slice = item.slice;
    }
    const auto group = work.probes.subspan(static_cast<std::size_t>(item.first_probe),
                                           static_cast<std::size_t>(item.probes));
    const std::span<const float> scores = runner.evaluate(group, work.noise);  // [P][Q]
    const std::size_t targets = batch.packed.target_tokens.size();
    for (std::size_t p = 0; p < group.size(); ++p) {
      const SliceLoss loss = loss_of(batch, scores.subspan(p * targets, targets));
      sink(item.first_probe + static_cast<std::int64_t>(p), item.slice,
           {.sum = loss.sum, .weight = loss.weight});
    }
  }
}

}  // namespace

std::unique_ptr<Objective> make_likelihood(LossRule rule) { return std::make_unique<Likelihood>(rule); }

StepUnits units_of(const Objective& objective, const Slices& slices, std::int64_t probes, bool paired) {
  StepUnits units{.probes = probes, .slice_tokens = {}, .paired = paired};
  for (const std::vector<const Example*>& slice : slices) {
    std::int64_t tokens = 0;
    for (const Example* example : slice) tokens += objective.tokens_of(*example);
    units.slice_tokens.push_back(tokens);
  }
  return units;
}

}  // namespace mezzo
