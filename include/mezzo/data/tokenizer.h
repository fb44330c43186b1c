#pragma once
// Text to token ids and back, as a model's tokenizer files say.
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mezzo {

/// A token that plays a part: its id and its text.
struct NamedToken {
  std::int32_t id;
  std::string text;
  bool operator==(const NamedToken&) const = default;
};

/// A model's tokenizer. Immutable: one may serve several threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// The ids of `text`, which must be UTF-8 (else InputError with the offset of the first bad byte).
  /// `with_special` puts the post-processor's tokens around them; added tokens that are written in the text
  /// are recognised either way, as Hugging Face does.
  virtual std::vector<std::int32_t> encode(std::string_view text, bool with_special) const = 0;

  /// The ids of a text that goes on where another ended: without special tokens, and without the space mark
  /// that some tokenizers put before a text.
  virtual std::vector<std::int32_t> encode_continuation(std::string_view text) const {
    return encode(text, false);
  }

  /// The bytes that the ids stand for, nothing added, dropped or cleaned: special tokens are their text, and
  /// ids that cut a character give a part of it. InputError for an id that is not in the vocabulary.
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;

  /// The same for ids that go on behind others: a space mark that they start with is a space, where decode()
  /// drops the one that was put before a text.
  virtual std::string decode_continuation(std::span<const std::int32_t> ids) const { return decode(ids); }

  /// The token that the post-processor puts first, if it puts one there.
  virtual std::optional<std::int32_t> start_token() const = 0;

  /// The tokens that tokenizer_config.json, or an older special_tokens_map.json, calls bos_token and
  /// eos_token: what chat templates know by these names. Nothing where no file beside the tokenizer names
  /// one.
  virtual std::optional<NamedToken> bos_token() const { return std::nullopt; }
  virtual std::optional<NamedToken> eos_token() const { return std::nullopt; }

  /// The id of eos_token().
  std::optional<std::int32_t> end_token() const {
    const std::optional<NamedToken> token = eos_token();
    return token ? std::optional(token->id) : std::nullopt;
  }
};

/// Reads a model's directory: its tokenizer.json, with what tokenizer_config.json adds to it
/// (docs/tokenizers.md); or a tokenizer.json by itself. What this version does not serve is an InputError
/// that names the file and the field. With `model_vocabulary`, the number of ids that the model has, encode()
/// and this function throw an InputError for an id beyond it. `hash`, unless null, gets the tokenizer_hash()
/// of what was read.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path,
                                          std::optional<std::int64_t> model_vocabulary = std::nullopt,
                                          std::string* hash = nullptr);

/// SHA-256, in hexadecimal, of what decides the ids of the tokenizer that load_tokenizer() reads from there:
/// tokenizer.json without `truncation` and `padding`, as tokenizer_config.json changes it. The layout of the
/// files, the order of their keys and keys that change nothing do not count.
std::string tokenizer_hash(const std::string& path);

}  // namespace mezzo
