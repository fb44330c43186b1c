#include "mezzo/data/tokenizer.h"

#include <utility>

#include "mezzo/data/pipeline.h"
#include "mezzo/data/tokenizer_config.h"
#include "mezzo/data/tokenizer_files.h"
#include "mezzo/data/tokenizer_json.h"

namespace mezzo {
namespace {

/// The added token with this text.
std::optional<NamedToken> added_token(const nlohmann::json& document,
                                      const std::optional<std::string>& text) {
  if (!text) return std::nullopt;
  for (const auto& entry : document["added_tokens"]) {
    if (entry["content"] == *text) return NamedToken{entry["id"].get<std::int32_t>(), *text};
  }
  return std::nullopt;
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path,
                                          std::optional<std::int64_t> model_vocabulary, std::string* hash) {
  TokenizerFiles files = read_tokenizer_files(path);
  PipelineParts parts = read_tokenizer_json(files.document, files.file, std::move(files.sentencepiece));
  check_start_and_end(JsonCursor(files.config, files.config_file), parts, files.file);
  parts.bos = added_token(files.document, files.bos);
  parts.eos = added_token(files.document, files.eos);
  if (hash != nullptr) *hash = hash_of(files);
  return std::make_unique<PipelineTokenizer>(std::move(parts), model_vocabulary);
}

std::string tokenizer_hash(const std::string& path) { return hash_of(read_tokenizer_files(path)); }

}  // namespace mezzo
