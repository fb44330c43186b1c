#include <charconv>
#include <iostream>
#include <memory>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/core/error.h"
#include "mezzo/data/tokenizer.h"
#include "mezzo/io/files.h"

namespace mezzo {

namespace {

constexpr std::uint64_t input_limit = std::uint64_t{1} << 28;  // bytes of one text

std::vector<std::int32_t> parse_ids(const std::string& text) {
  std::vector<std::int32_t> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    while (at != end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) ++at;
    if (at == end) return ids;
    std::int32_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc{} || id < 0) {
      throw InputError("standard input: offset {}: expected a token id", at - text.data());
    }
    ids.push_back(id);
    at = next;
  }
}

}  // namespace

VerbAction add_tokenize(CLI::App& verb) {
  struct Arguments {
    std::string model;
    bool decode = false;
    bool special = false;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("model", arguments->model,
                  "model folder or its name on the Hub, tokenizer.json or tokenizer.model")
      ->required()
      ->transform(model_path());
  auto* decode = verb.add_flag("--decode", arguments->decode, "ids to text, raw bytes");
  verb.add_flag("--special", arguments->special, "add the post-processor's tokens")->excludes(decode);
  verb.footer("Example: printf 'a fine film' | mezzo tokenize configs/quickstart/llama2m --special");
  return [arguments](VerbContext&) {
    const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(arguments->model);
    const std::string input = read_standard_input(input_limit);
    if (arguments->decode) {
      std::cout << tokenizer->decode(parse_ids(input));
    } else {
      std::string line;
      for (const std::int32_t id : tokenizer->encode(input, arguments->special)) {
        line += (line.empty() ? "" : " ") + std::to_string(id);
      }
      std::cout << line << '\n';
    }
    return ExitCode::done;
  };
}

}  // namespace mezzo
