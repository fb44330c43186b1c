#pragma once
// What a model answers in its own words: greedy continuations of the examples' prompts, for evaluations.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mezzo/comm/exchange.h"
#include "mezzo/data/example.h"
#include "mezzo/data/tokenizer.h"
#include "mezzo/train/generator.h"
#include "mezzo/train/loaded_model.h"
#include "mezzo/train/rewarded_generation.h"

namespace mezzo {

/// The examples [begin, end) for which a rank writes.
struct RankPart {
  std::size_t begin = 0, end = 0;
};
RankPart part_of(std::size_t examples, const Exchange& exchange);

/// One request for each example of `part`, numbered among all of them, and the rows of all.
std::vector<GenerationRequest> requests_of(std::span<const Example> examples, RankPart part);
inline DecodingRows rows_of(std::span<const Example> examples) {
  return DecodingRows::of(std::ssize(examples), most_slots);
}
/// What the unperturbed model writes, in the requests' order. The generator's runner has room for it.
std::vector<Generated> write_unperturbed(const Generator& generator,
                                         std::span<const GenerationRequest> requests,
                                         const DecodingRows& rows);

/// An answer an example, in their order, as valid UTF-8; of the unperturbed model, by `rule`. The same on any
/// number of ranks, which share the examples; all ranks call it together and get all answers. DeviceError
/// where a logit is NaN.
std::vector<std::string> answers(LoadedModel& model, const Description& description,
                                 const Tokenizer& tokenizer, const GenerationRule& rule,
                                 std::span<const Example> examples, Exchange& exchange, Patience patience);

}  // namespace mezzo
