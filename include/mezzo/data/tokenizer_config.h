#pragma once
// tokenizer_config.json: what transformers adds to a tokenizer.json when it loads a model's directory
// (docs/tokenizers.md).
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "mezzo/data/pipeline.h"
#include "mezzo/io/json_cursor.h"

namespace mezzo {

/// Changes `document`, the tokenizer.json in `file`, to what it amounts to beside the tokenizer_config.json
/// `config`: tokens that only `config` names are added, flags of added tokens and the prefix space are set.
/// InputError where the two contradict each other, and for keys that change the tokenizer and are not served.
void apply_tokenizer_config(const JsonCursor& config, nlohmann::json& document, const std::string& file);

/// InputError where `names`, an added_tokens.json or special_tokens_map.json, has a token that `document`,
/// the tokenizer.json as apply_tokenizer_config() has changed it, has not. transformers reads the two files
/// where tokenizer_config.json has no added_tokens_decoder; later versions write neither.
void check_older_file(const JsonCursor& names, const nlohmann::json& document);

/// The text of the token that `names`, a tokenizer_config.json or special_tokens_map.json, calls `name`
/// (bos_token, eos_token); with the token that a class has by default. Nothing where it names none.
std::optional<std::string> named_token(const JsonCursor& names, std::string_view name);

/// InputError where `config` says of the start or end token another thing than the post-processor in `file`
/// does, out of which `parts` were read.
void check_start_and_end(const JsonCursor& config, const PipelineParts& parts, const std::string& file);

}  // namespace mezzo
