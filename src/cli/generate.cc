#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/core/philox.h"
#include "mezzo/data/chat_template.h"
#include "mezzo/train/answers.h"

namespace mezzo {

namespace {

struct Sampling {
  double temperature = 0.0;  ///< 0: greedy
  double top_p = 1.0;
  std::uint64_t seed = 42;
};

/// Uniform in [0, 1) for the n-th token, from Philox with a purpose of its own.
double uniform(std::uint64_t seed, std::uint64_t n) {
  return philox4x32_10(philox_counter(n, 0, Purpose::sampling), philox_key(seed)).word[0] * 0x1p-32;
}

/// Greedy, or nucleus sampling (Holtzman et al. 2020): the smallest set of tokens whose probability reaches
/// top_p.
std::int32_t choose(std::span<const float> logits, const Sampling& sampling, std::uint64_t n) {
  const auto best = std::max_element(logits.begin(), logits.end());
  if (sampling.temperature == 0.0) return static_cast<std::int32_t>(best - logits.begin());
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto logit = [&](std::int32_t id) {
    return static_cast<double>(logits[static_cast<std::size_t>(id)]);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return logit(a) > logit(b); });
  std::vector<double> weights;
  for (const std::int32_t id : order) {
    weights.push_back(std::exp((logit(id) - static_cast<double>(*best)) / sampling.temperature));
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double kept = 0.0;
  std::size_t count = 0;
  while (count < weights.size() && (count == 0 || kept < sampling.top_p * total)) kept += weights[count++];
  double target = uniform(sampling.seed, n) * kept;
  for (std::size_t i = 0; i + 1 < count; ++i) {
    if (target < weights[i]) return order[i];
    target -= weights[i];
  }
  return order[count - 1];
}

}  // namespace

VerbAction add_generate(CLI::App& verb) {
  struct Arguments {
    std::string model, prompt, adapter;
    bool chat = false;
    std::int64_t tokens = 50;
    Sampling sampling;
    DeviceOptions device;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("model", arguments->model, "model folder, or its name on the Hub")
      ->required()
      ->transform(model_path());
  verb.add_option("--prompt", arguments->prompt, "text to go on from")->required();
  verb.add_flag("--chat", arguments->chat,
                "the prompt is what a user says, written by the model's chat template");
  verb.add_option("--adapter", arguments->adapter, "PEFT adapter")->transform(model_path());
  verb.add_option("--max-new-tokens", arguments->tokens, "tokens to add at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--temperature", arguments->sampling.temperature, "0: greedy")
      ->check(finite_number())
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--top-p", arguments->sampling.top_p, "nucleus")
      ->check(finite_number())
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb.add_option("--seed", arguments->sampling.seed, "of the sampling")
      ->check(whole_number())
      ->capture_default_str();
  add_device_options(verb, arguments->device);
  verb.footer(
      "Example: mezzo generate configs/quickstart/llama2m --prompt 'The film was' --temperature 0.8 --top-p "
      "0.9");
  return [arguments](VerbContext& context) {
    const Placement placement =
        place_together(arguments->device.runtime(), context.exchange, starting_patience);
    const ModelFiles files(arguments->model);
    const std::unique_ptr<Tokenizer> tokenizer =
        load_tokenizer(arguments->model, files.description.vocabulary);
    std::vector<std::int32_t> ids;
    if (arguments->chat) {
      const std::optional<ChatTemplate> chat = ChatTemplate::load(files.directory, *tokenizer);
      if (!chat) throw UsageError("--chat: {} has no chat template", files.directory);
      ids =
          tokenizer->encode(chat->render({{{"role", "user"}, {"content", arguments->prompt}}}, true), false);
    } else {
      ids = tokenizer->encode(arguments->prompt, false);
      if (const auto start = tokenizer->start_token()) ids.insert(ids.begin(), *start);
    }
    if (ids.empty()) throw UsageError("--prompt: is empty, and this tokenizer puts no start token before it");
    const std::vector<std::int32_t> ends = end_tokens(arguments->model);
    const auto positions = static_cast<std::size_t>(files.description.max_positions);
    if (ids.size() > positions) {
      throw UsageError("--prompt: {} tokens, but the model has {}", ids.size(),
                       files.description.positions_text());
    }
    std::optional<AdapterSource> adapter;
    if (!arguments->adapter.empty())
      adapter = AdapterSource::from_adapter(arguments->adapter, files.description);
    const ModelOnDevice loaded = load_model(files, adapter ? &*adapter : nullptr, placement);
    const std::size_t longest = std::min(positions, ids.size() + static_cast<std::size_t>(arguments->tokens));
    NextTokenLogits logits(*loaded.model, files.description.vocabulary,
                           {.tokens = static_cast<std::int64_t>(longest),
                            .sequences = 1,
                            .loss_rows = 1,
                            .targets = 0,
                            .longest = static_cast<std::int64_t>(longest)});
    const std::size_t prompt_tokens = ids.size();
    while (ids.size() < longest) {
      const std::vector<std::int32_t>* const one = &ids;
      const std::int32_t id =
          choose(logits.behind({&one, 1}), arguments->sampling, ids.size() - prompt_tokens);
      if (std::find(ends.begin(), ends.end(), id) != ends.end()) break;
      ids.push_back(id);
    }
    const std::string text = tokenizer->decode(std::span(ids).subspan(arguments->chat ? prompt_tokens
                                                                      : tokenizer->start_token() ? 1
                                                                                                 : 0)) +
                             '\n';
    // A file or another program gets what the model wrote, a terminal what it can show.
    if (::isatty(STDOUT_FILENO) == 1) print_text(text);
    else std::cout << text;
    return ExitCode::done;
  };
}

}  // namespace mezzo
