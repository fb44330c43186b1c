#pragma once
// A tokenizer.model of SentencePiece (Kudo and Richardson 2018, arXiv:1808.06226), BPE or unigram, run by its
// own library.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mezzo/data/piece.h"
#include "mezzo/data/vocabulary.h"

namespace mezzo {

/// Immutable: one may serve several threads, each with a Workspace of its own.
class SentencePieceModel {
 public:
  struct Workspace {
    std::vector<int> ids;
  };

  /// `serialized`: the bytes of `file`. With `legacy` every piece of a text between added tokens gets the
  /// space mark that the model puts before texts, as transformers' LlamaTokenizer did it first; without, the
  /// start of the text alone. InputError for what is no model.
  SentencePieceModel(std::string_view serialized, bool legacy, std::string file);
  SentencePieceModel(SentencePieceModel&&) noexcept;
  SentencePieceModel& operator=(SentencePieceModel&&) noexcept;
  ~SentencePieceModel();

  /// Appends the ids of `piece` (valid UTF-8), a text between added tokens, to `ids`.
  void encode(std::string_view piece, PieceStart start, Workspace& workspace,
              std::vector<std::int32_t>& ids) const;

  Vocabulary::Ids pieces() const;
  std::optional<std::string> bos() const;  ///< the texts of the model's own start, end and unknown tokens
  std::optional<std::string> eos() const;
  std::optional<std::string> unknown() const;
  /// Whether the model puts a space mark before a text.
  bool puts_mark() const;
  /// Whether it drops blanks at the ends of a text, and all but one inside.
  bool drops_blanks() const;

 private:
  struct Processors;
  std::unique_ptr<Processors> processors_;
  bool legacy_;
};

}  // namespace mezzo
