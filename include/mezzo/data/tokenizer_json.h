#pragma once
// Reading a tokenizer.json.
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "mezzo/data/pipeline.h"

namespace mezzo {

/// Reads `document`, which stands in `file`. InputError, naming file and field, for what this version does
/// not serve. `truncation` and `padding` are passed over: transformers sets both anew at each call, whatever
/// the file says. `sentencepiece`, if it is there, takes the place of the document's model.
PipelineParts read_tokenizer_json(const nlohmann::json& document, const std::string& file,
                                  std::optional<SentencePieceModel> sentencepiece = std::nullopt);

}  // namespace mezzo
