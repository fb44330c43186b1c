#include "mezzo/train/answers.h"

#include <nlohmann/json.hpp>

#include "mezzo/comm/together.h"
#include "mezzo/core/error.h"

namespace mezzo {

std::vector<std::string> answers(LoadedModel& model, const Description& description,
                                 const Tokenizer& tokenizer, const GenerationRule& rule,
                                 std::span<const Example> examples, Exchange& exchange, Patience patience) {
  const auto ranks = static_cast<std::size_t>(exchange.size());
  const auto rank = static_cast<std::size_t>(exchange.rank());
  const std::size_t begin = examples.size() * rank / ranks;
  const std::size_t end = examples.size() * (rank + 1) / ranks;
  std::vector<GenerationRequest> requests;
  for (std::size_t i = begin; i < end; ++i)
    requests.push_back({.prompt = examples[i].prompt, .number = static_cast<std::int64_t>(i)});
  std::vector<std::string> mine(requests.size());
  if (!requests.empty()) {
    const Generator generator(model.runner, tokenizer, rule, description.max_positions);
    const auto rows = DecodingRows::of(std::ssize(examples), most_slots);
    model.runner.reserve(shape_of(requests, rows, rule, description.max_positions), 1);
    const Probe unperturbed;
    generator.run({&unperturbed, 1}, NoiseKind::gaussian, requests, rows,
                  [&](std::int64_t, std::int64_t request, Generated&& written) {
                    if (!written.finite)
                      throw DeviceError("example {}: a logit is not a number",
                                        begin + static_cast<std::size_t>(request) + 1);
                    mine[static_cast<std::size_t>(request)] = std::move(written.text);
                  });
  }
  std::vector<std::string> all;
  for (const std::string& of_rank : agree(exchange, nlohmann::json(mine).dump(), patience)) {
    const nlohmann::json texts = nlohmann::json::parse(of_rank);
    for (const nlohmann::json& text : texts) all.push_back(text.get<std::string>());
  }
  return all;
}

}  // namespace mezzo
