#include "mezzo/train/answers.h"

#include <nlohmann/json.hpp>

#include "mezzo/comm/together.h"
#include "mezzo/core/error.h"

namespace mezzo {

RankPart part_of(std::size_t examples, const Exchange& exchange) {
  const auto ranks = static_cast<std::size_t>(exchange.size());
  const auto rank = static_cast<std::size_t>(exchange.rank());
  return {.begin = examples * rank / ranks, .end = examples * (rank + 1) / ranks};
}

std::vector<GenerationRequest> requests_of(std::span<const Example> examples, RankPart part) {
  std::vector<GenerationRequest> requests;
  for (std::size_t i = part.begin; i < part.end; ++i)
    requests.push_back({.prompt = examples[i].prompt, .number = static_cast<std::int64_t>(i)});
  return requests;
}

std::vector<Generated> write_unperturbed(const Generator& generator,
                                         std::span<const GenerationRequest> requests,
                                         const DecodingRows& rows) {
  std::vector<Generated> written(requests.size());
  if (requests.empty()) return written;
  const Probe unperturbed;
  generator.run({&unperturbed, 1}, NoiseKind::gaussian, requests, rows,
                [&](std::int64_t, std::int64_t request, Generated&& one) {
                  written[static_cast<std::size_t>(request)] = std::move(one);
                });
  return written;
}

std::vector<std::string> answers(LoadedModel& model, const Description& description,
                                 const Tokenizer& tokenizer, const GenerationRule& rule,
                                 std::span<const Example> examples, Exchange& exchange, Patience patience) {
  const RankPart part = part_of(examples.size(), exchange);
  const std::vector<GenerationRequest> requests = requests_of(examples, part);
  const DecodingRows rows = rows_of(examples);
  if (!requests.empty()) model.runner.reserve(shape_of(requests, rows, rule, description.max_positions), 1);
  const Generator generator(model.runner, tokenizer, rule, description.max_positions);
  std::vector<std::string> mine;
  for (Generated& written : write_unperturbed(generator, requests, rows)) {
    if (!written.finite)
      throw DeviceError("example {}: a logit is not a number", part.begin + mine.size() + 1);
    mine.push_back(std::move(written.text));
  }
  std::vector<std::string> all;
  for (const std::string& of_rank : agree(exchange, nlohmann::json(mine).dump(), patience)) {
    const nlohmann::json texts = nlohmann::json::parse(of_rank);
    for (const nlohmann::json& text : texts) all.push_back(text.get<std::string>());
  }
  return all;
}

}  // namespace mezzo
