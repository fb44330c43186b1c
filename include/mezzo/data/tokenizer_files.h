#pragma once
// The files of a model's tokenizer, found and put together.
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "mezzo/data/sentencepiece_model.h"

namespace mezzo {

struct TokenizerFiles {
  std::string file;         ///< in messages: tokenizer.json, tokenizer.model, or vocab.json and merges.txt
  nlohmann::json document;  ///< a tokenizer.json: the one that is there, or what the others amount to
  std::string config_file;
  nlohmann::json config = nlohmann::json::object();  ///< tokenizer_config.json; empty without one
  std::optional<std::string> bos{};                  ///< the texts of bos_token and eos_token
  std::optional<std::string> eos{};
  std::optional<SentencePieceModel> sentencepiece{};  ///< of a tokenizer.model
};

/// Reads a model's directory: tokenizer.json; else tokenizer.model; else vocab.json and merges.txt; and
/// tokenizer_config.json and what older versions wrote beside them (docs/tokenizers.md). Or a tokenizer.json
/// or tokenizer.model by itself. InputError for what is not served.
TokenizerFiles read_tokenizer_files(const std::string& path);

/// SHA-256 of what decides the ids: the document, without `truncation` and `padding`.
std::string hash_of(const TokenizerFiles& files);

}  // namespace mezzo
