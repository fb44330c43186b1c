#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/data/chat_template.h"
#include "mezzo/train/answers.h"
#include "mezzo/train/sampling.h"

namespace mezzo {

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
          next_token(logits.behind({&one, 1}), arguments->sampling, ids.size() - prompt_tokens);
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
