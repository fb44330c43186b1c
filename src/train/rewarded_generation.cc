#include "mezzo/train/rewarded_generation.h"

#include <algorithm>
#include <limits>

#include "mezzo/core/error.h"

namespace mezzo {

RewardedGeneration::RewardedGeneration(const Config& config, const Tokenizer& tokenizer,
                                       const Description& description, std::vector<std::int32_t> ends)
    : reward_(config.data.task.reward),
      rule_{.max_new_tokens = config.generation.max_new_tokens,
            .sampling = {.temperature = static_cast<float>(config.generation.temperature),
                         .top_p = static_cast<float>(config.generation.top_p)},
            .ends = std::move(ends),
            .stops = config.generation.stop},
      tokenizer_(tokenizer),
      samples_(config.generation.samples),
      seed_(config.train.seed),
      max_positions_(description.max_positions) {}

void RewardedGeneration::start_grader(GraderSurroundings surroundings) {
  surroundings.max_new_tokens = rule_.max_new_tokens;
  grader_ = make_grader(reward_, surroundings);
}

Grader& RewardedGeneration::grader() const {
  if (!grader_) throw Error("completions were to be graded before a grader was started");
  return *grader_;
}

Completion completion_of(const Example& example, Generated&& written) {
  return {.record = example.record,
          .answers = example.answers,
          .text = std::move(written.text),
          .tokens = std::ssize(written.tokens),
          .finish = written.finish};
}

namespace {

class GenerationObjective final : public Objective {
 public:
  explicit GenerationObjective(const RewardedGeneration& generation) : generation_(generation) {}

  BatchShape shape_of(const Example& example) const override {
    const std::int64_t prompt = std::ssize(example.prompt);
    const std::int64_t new_tokens = generation_.rule().max_new_tokens;
    return {.tokens = prompt,
            .sequences = 1,
            .loss_rows = 1,
            .targets = generation_.samples(),
            .longest = std::min(prompt + new_tokens, generation_.max_positions()),
            .mixed = true,
            .cache = {.prompt_rows = prompt, .slots = generation_.samples(), .new_tokens = new_tokens}};
  }
  BatchShape room_for(const BatchShape& largest) const override {
    BatchShape room = largest;
    room.tokens = std::min(largest.tokens, std::max(most_prefill_tokens, largest.longest));
    room.cache.slots = DecodingRows::of(largest.cache.slots, most_slots).slots;
    return room;
  }
  std::int64_t tokens_of(const Example& example) const override {
    return std::ssize(example.prompt) + generation_.samples() * generation_.rule().max_new_tokens;
  }
  void evaluate(ProbeRunner& runner, const StepWork& work, std::span<const WorkItem> items,
                const SlotSink& sink) const override;

 private:
  /// The requests of a slice: the samples of an example one behind the other.
  std::vector<GenerationRequest> requests_of(const StepWork& work, std::int64_t slice) const;

  const RewardedGeneration& generation_;
};

std::vector<GenerationRequest> GenerationObjective::requests_of(const StepWork& work,
                                                                std::int64_t slice) const {
  std::uint64_t example = 0;  // its number among the step's, however that is cut
  for (std::int64_t before = 0; before < slice; ++before)
    example += work.slices[static_cast<std::size_t>(before)].size();
  std::vector<GenerationRequest> requests;
  for (const Example* one : work.slices[static_cast<std::size_t>(slice)]) {
    for (std::int64_t sample = 0; sample < generation_.samples(); ++sample) {
      requests.push_back(
          {.prompt = one->prompt,
           .number = std::ssize(requests),
           .draw_key = draw_key(generation_.seed(), work.step, example, static_cast<std::uint32_t>(sample))});
    }
    ++example;
  }
  return requests;
}

void GenerationObjective::evaluate(ProbeRunner& runner, const StepWork& work, std::span<const WorkItem> items,
                                   const SlotSink& sink) const {
  Grader& grader = generation_.grader();
  const Generator generator(runner, generation_.tokenizer(), generation_.rule(), generation_.max_positions());
  struct Slot {
    std::int64_t probe = 0, slice = 0;
    std::size_t completions = 0;
    bool finite = true;
  };
  std::vector<Slot> slots;
  for (const WorkItem& item : items) {
    const std::vector<GenerationRequest> requests = requests_of(work, item.slice);
    const std::size_t count = requests.size();
    const auto group = work.probes.subspan(static_cast<std::size_t>(item.first_probe),
                                           static_cast<std::size_t>(item.probes));
    std::vector<Generated> written(group.size() * count);
    generator.run(group, work.noise, requests, DecodingRows::of(std::ssize(requests), most_slots),
                  [&](std::int64_t probe, std::int64_t request, Generated&& one) {
                    written[static_cast<std::size_t>(probe) * count + static_cast<std::size_t>(request)] =
                        std::move(one);
                  });
    // The grader works on these while the next group decodes.
    const auto& slice = work.slices[static_cast<std::size_t>(item.slice)];
    for (std::size_t p = 0; p < group.size(); ++p) {
      Slot& slot = slots.emplace_back(Slot{.probe = item.first_probe + static_cast<std::int64_t>(p),
                                           .slice = item.slice,
                                           .completions = count,
                                           .finite = true});
      for (std::size_t n = 0; n < count; ++n) {
        Generated& one = written[p * count + n];
        slot.finite = slot.finite && one.finite;
        grader.submit(
            completion_of(*slice[n / static_cast<std::size_t>(generation_.samples())], std::move(one)));
      }
    }
  }
  const std::vector<Grade> grades = grader.finish();
  std::size_t next = 0;
  for (const Slot& slot : slots) {
    SlotValue value{.sum = 0.0, .weight = static_cast<double>(slot.completions)};
    for (std::size_t n = 0; n < slot.completions; ++n, ++next)
      value.sum -=
          grades[next].good && slot.finite ? grades[next].reward : std::numeric_limits<double>::quiet_NaN();
    sink(slot.probe, slot.slice, value);
  }
}

}  // namespace

std::unique_ptr<Objective> make_generation(const RewardedGeneration& generation) {
  return std::make_unique<GenerationObjective>(generation);
}

}  // namespace mezzo
