#pragma once
// Reading a tokenizer.json: byte-level byte-pair encoding, with what stands around it.
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "mezzo/data/added_tokens.h"
#include "mezzo/data/byte_pair_encoding.h"
#include "mezzo/data/pre_tokenizer.h"
#include "mezzo/data/tokenizer.h"

namespace mezzo {

/// Far above any model's; tables are as long as the largest id.
inline constexpr std::int32_t max_token_id = (1 << 24) - 1;

/// What a tokenizer.json amounts to.
struct TokenizerParts {
  std::vector<std::optional<std::string>> bytes_of_id;  ///< nothing where an id is not used
  AddedTokens added_tokens;
  PreTokenizer pre_tokenizer;
  BytePairEncoding model;
  std::vector<std::int32_t> prefix;  ///< the post-processor's tokens before a text ...
  std::vector<std::int32_t> suffix;  ///< ... and behind it
  std::optional<NamedToken> bos;     ///< as the files beside it name them
  std::optional<NamedToken> eos;
};

/// Reads `document`, which stands in `file`. InputError, naming file and field, for what this version does
/// not serve. `truncation` and `padding` are passed over: transformers sets both anew at each call, whatever
/// the file says.
TokenizerParts read_tokenizer_json(const nlohmann::json& document, const std::string& file);

}  // namespace mezzo
