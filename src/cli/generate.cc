#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/data/chat_template.h"
#include "mezzo/data/records.h"
#include "mezzo/train/answers.h"

namespace mezzo {
namespace {

struct Arguments {
  std::string model, prompt, prompts, adapter;
  bool chat = false;
  std::int64_t tokens = 50;
  std::int64_t samples = 1;
  double temperature = 0.0;
  double top_p = 1.0;
  std::uint64_t seed = 0;
  std::vector<std::string> stops;
  DeviceOptions device;
};

/// The ids of a prompt, start token first where there is one. `where` says in errors which it is.
class PromptEncoder {
 public:
  PromptEncoder(const ModelFiles& files, const Tokenizer& tokenizer, bool chat)
      : files_(files), tokenizer_(tokenizer) {
    if (!chat) return;
    chat_ = ChatTemplate::load(files.directory, tokenizer);
    if (!chat_) throw UsageError("--chat: {} has no chat template", files.directory);
  }

  std::vector<std::int32_t> ids(const std::string& prompt, const std::string& where) const {
    std::vector<std::int32_t> ids;
    if (chat_) {
      ids = tokenizer_.encode(chat_->render({{{"role", "user"}, {"content", prompt}}}, true), false);
    } else {
      ids = tokenizer_.encode(prompt, false);
      if (const auto start = tokenizer_.start_token()) ids.insert(ids.begin(), *start);
    }
    if (ids.empty())
      throw UsageError("{}: is empty, and this tokenizer puts no start token before it", where);
    if (std::ssize(ids) > files_.description.max_positions) {
      throw UsageError("{}: {} tokens, but the model has {}", where, ids.size(),
                       files_.description.positions_text());
    }
    return ids;
  }

 private:
  const ModelFiles& files_;
  const Tokenizer& tokenizer_;
  std::optional<ChatTemplate> chat_;
};

/// The prompts of a file of records.
std::vector<std::string> prompts_in(const std::string& path) {
  std::vector<std::string> prompts;
  read_records(path, DataFormat::automatic, [&](const nlohmann::json& record, const std::string& where) {
    const auto prompt = record.find("prompt");
    if (prompt == record.end()) throw missing_field(record, "prompt", where);
    if (!prompt->is_string()) throw InputError("{}: field \"prompt\": expected a text", where);
    prompts.push_back(prompt->get<std::string>());
  });
  return prompts;
}

std::vector<GenerationRequest> requests_of(const std::vector<std::vector<std::int32_t>>& prompts,
                                           const Arguments& arguments) {
  std::vector<GenerationRequest> requests;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    for (std::int64_t sample = 0; sample < arguments.samples; ++sample) {
      requests.push_back({.prompt = prompts[i],
                          .number = std::ssize(requests),
                          .draw_key = draw_key(arguments.seed, 0, i, static_cast<std::uint32_t>(sample))});
    }
  }
  return requests;
}

/// Prints a line for each completion, in the order of the requests, as soon as those before it are there.
class Printer {
 public:
  Printer(const std::vector<std::string>& prompts, std::int64_t samples)
      : prompts_(prompts), samples_(static_cast<std::size_t>(samples)), lines_(prompts.size() * samples_) {}

  void take(std::size_t request, const Generated& written) {
    nlohmann::ordered_json line = {{"prompt", prompts_[request / samples_]}};
    if (samples_ > 1) line["sample"] = request % samples_;
    line["completion"] = written.text;
    line["tokens"] = written.tokens.size();
    line["finish_reason"] = name_of(written.finish);
    lines_[request] = line.dump() + '\n';
    for (; next_ < lines_.size() && !lines_[next_].empty(); lines_[next_++].clear())
      std::cout << lines_[next_];
    flush_standard_output();  // nothing more is computed for a reader who has left
  }

 private:
  const std::vector<std::string>& prompts_;
  std::size_t samples_;
  std::vector<std::string> lines_;
  std::size_t next_ = 0;
};

/// A file or another program gets what the model wrote, a terminal what it can show.
void print_whole(const std::string& text) {
  if (::isatty(STDOUT_FILENO) == 1) print_text(text + '\n');
  else std::cout << text << '\n';
}

ExitCode generate(const Arguments& arguments, VerbContext& context) {
  if (context.exchange.size() > 1)
    throw UsageError("generate runs on one rank, found {}", context.exchange.size());
  const Placement placement = place_together(arguments.device.runtime(), context.exchange, starting_patience);
  const ModelFiles files(arguments.model);
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(arguments.model, files.description.vocabulary);
  const bool from_file = !arguments.prompts.empty();
  const std::vector<std::string> texts =
      from_file ? prompts_in(arguments.prompts) : std::vector<std::string>{arguments.prompt};
  const PromptEncoder encoder(files, *tokenizer, arguments.chat);
  std::vector<std::vector<std::int32_t>> prompts;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::string where = from_file ? fmt::format("{}:{}", arguments.prompts, i + 1) : "--prompt";
    prompts.push_back(encoder.ids(texts[i], where));
  }
  std::optional<AdapterSource> adapter;
  if (!arguments.adapter.empty()) adapter = AdapterSource::from_adapter(arguments.adapter, files.description);
  const ModelOnDevice loaded = load_model(files, adapter ? &*adapter : nullptr, placement);
  const GenerationRule rule{.max_new_tokens = arguments.tokens,
                            .sampling = {.temperature = static_cast<float>(arguments.temperature),
                                         .top_p = static_cast<float>(arguments.top_p)},
                            .ends = end_tokens(arguments.model),
                            .stops = arguments.stops};
  const std::vector<GenerationRequest> requests = requests_of(prompts, arguments);
  const Generator generator(loaded.model->runner, *tokenizer, rule, files.description.max_positions);
  const auto rows = DecodingRows::of(std::ssize(requests), most_slots);
  loaded.model->runner.reserve(shape_of(requests, rows, rule, files.description.max_positions), 1);

  Printer printer(texts, arguments.samples);
  std::size_t tokens = 0;
  const auto start = std::chrono::steady_clock::now();
  const Probe unperturbed;
  generator.run({&unperturbed, 1}, NoiseKind::gaussian, requests, rows,
                [&](std::int64_t, std::int64_t request, Generated&& written) {
                  const auto i = static_cast<std::size_t>(request);
                  if (!written.finite) throw DeviceError("prompt {}: a logit is not a number", i + 1);
                  tokens += written.tokens.size();
                  if (from_file || arguments.samples > 1) return printer.take(i, written);
                  // Before a written text stands its prompt, but not what a template made of it.
                  std::vector<std::int32_t> ids = arguments.chat ? std::vector<std::int32_t>() : prompts[0];
                  if (!arguments.chat && tokenizer->start_token()) ids.erase(ids.begin());
                  ids.insert(ids.end(), written.tokens.begin(), written.tokens.end());
                  print_whole(tokenizer->decode(ids));
                });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (from_file) {
    context.log.info("{} completions, {} tokens in {:.2f} s: {:.0f} tokens/s", requests.size(), tokens,
                     seconds, static_cast<double>(tokens) / seconds);
  }
  return ExitCode::done;
}

}  // namespace

VerbAction add_generate(CLI::App& verb) {
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("model", arguments->model, "model folder, or its name on the Hub")
      ->required()
      ->transform(model_path());
  auto* const one = verb.add_option("--prompt", arguments->prompt, "text to go on from");
  auto* const file =
      verb.add_option("--prompts", arguments->prompts,
                      "data file whose records have a `prompt` each; a JSON line comes out for each "
                      "completion, in their order");
  one->excludes(file);
  verb.add_flag("--chat", arguments->chat,
                "a prompt is what a user says, written by the model's chat template");
  verb.add_option("--adapter", arguments->adapter, "PEFT adapter")->transform(model_path());
  verb.add_option("--max-new-tokens", arguments->tokens, "tokens to add at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--samples", arguments->samples, "completions of each prompt")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--stop", arguments->stops,
                  "text that ends a completion and is no part of it; may be repeated");
  verb.add_option("--temperature", arguments->temperature, "0: greedy")
      ->check(finite_number())
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--top-p", arguments->top_p, "nucleus")
      ->check(finite_number())
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb.add_option("--seed", arguments->seed, "of the sampling")->check(whole_number())->capture_default_str();
  add_device_options(verb, arguments->device);
  verb.footer(
      "Example: mezzo generate configs/quickstart/llama2m --prompt 'The film was' --temperature 0.8 --top-p "
      "0.9");
  return [arguments, one, file](VerbContext& context) {
    if (one->count() == 0 && file->count() == 0) throw UsageError("expected --prompt or --prompts");
    return generate(*arguments, context);
  };
}

}  // namespace mezzo
