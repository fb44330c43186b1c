#pragma once
// A tokenizer as a tokenizer.json describes it: added tokens and a normalizer, a pre-tokenizer, a model, a
// decoder, one behind the other.
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "mezzo/data/added_tokens.h"
#include "mezzo/data/byte_pair_encoding.h"
#include "mezzo/data/pre_tokenizer.h"
#include "mezzo/data/sentencepiece_model.h"
#include "mezzo/data/token_decoder.h"
#include "mezzo/data/tokenizer.h"
#include "mezzo/data/unigram.h"
#include "mezzo/data/word_piece.h"

namespace mezzo {

using TokenModel = std::variant<BytePairEncoding, Unigram, WordPiece, SentencePieceModel>;

struct PipelineParts {
  /// The texts of tokens, as the vocabulary writes them, by id; nothing where an id is not used.
  std::vector<std::optional<TokenDecoder::Token>> tokens;
  /// What added tokens that are normalized come from, where that is another text: they decode to it.
  std::unordered_map<std::int32_t, std::string> normalized_tokens;
  AddedTokens added_tokens;
  PreTokenizer pre_tokenizer;
  TokenModel model;
  TokenDecoder decoder;
  std::vector<std::int32_t> prefix;  ///< the post-processor's tokens before a text ...
  std::vector<std::int32_t> suffix;  ///< ... and behind it
  std::optional<NamedToken> bos{};   ///< as the files beside it name them
  std::optional<NamedToken> eos{};
};

class PipelineTokenizer final : public Tokenizer {
 public:
  /// InputError where a token of the prefix or suffix has an id beyond `model_vocabulary`.
  PipelineTokenizer(PipelineParts parts, std::optional<std::int64_t> model_vocabulary);

  std::vector<std::int32_t> encode(std::string_view text, bool with_special) const override;
  std::vector<std::int32_t> encode_continuation(std::string_view text) const override;
  std::string decode(std::span<const std::int32_t> ids) const override;
  std::string decode_continuation(std::span<const std::int32_t> ids) const override;
  std::optional<std::int32_t> start_token() const override;
  std::optional<NamedToken> bos_token() const override { return parts_.bos; }
  std::optional<NamedToken> eos_token() const override { return parts_.eos; }

 private:
  void append(std::string_view text, PieceStart start, std::vector<std::int32_t>& ids) const;
  std::vector<TokenDecoder::Token> tokens_of(std::span<const std::int32_t> ids) const;
  void check(std::span<const std::int32_t> ids) const;

  PipelineParts parts_;
  std::optional<std::int64_t> model_vocabulary_;
};

}  // namespace mezzo
