#pragma once
// Conversations as a model's chat template writes them, and which of their tokens are the assistant's.
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mezzo/data/jinja.h"
#include "mezzo/data/tokenizer.h"

namespace mezzo {

/// One turn of a conversation, an object with the texts `role` and `content` at least.
using Messages = std::vector<nlohmann::ordered_json>;

/// The chat template of a model. Immutable.
class ChatTemplate {
 public:
  /// `variables`: what the template sees besides the conversation, bos_token and eos_token above all. `name`
  /// stands before the line in messages. InputError as JinjaTemplate's.
  ChatTemplate(std::string_view source, std::string name, nlohmann::ordered_json variables);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  /// The template of a model's directory: chat_template.jinja, else `chat_template` of tokenizer_config.json
  /// (of several the one named "default"), else chat_template.json; or nothing. InputError for what is no
  /// template.
  static std::optional<ChatTemplate> load(const std::string& directory, const Tokenizer& tokenizer);

  const std::string& source() const { return source_; }
  /// The text of a conversation, with `add_generation_prompt` up to where the assistant goes on. InputError.
  std::string render(const Messages& messages, bool add_generation_prompt) const;

  struct Conversation {
    std::string text;
    std::vector<TextSpan> spans;  ///< in order: what the assistant says, and what closes its turn
  };
  /// A whole conversation. What {% generation %} encloses is the assistant's, where the template has it. Else
  /// a turn begins where the text of the conversation before it, with the generation prompt, ends; and it
  /// ends where the text up to it ends, white space apart that follows what closes the turn. Of a turn that
  /// the template shortens when others follow (thinking is dropped) what is left counts. InputError for a
  /// template that writes turns in a way which does not say where they are.
  Conversation conversation(const Messages& messages) const;

 private:
  TextSpan turn_of(const std::string& text, const Messages& messages, std::size_t turn) const;

  std::string name_;
  std::string source_;
  JinjaTemplate template_;
  std::unique_ptr<const nlohmann::ordered_json> variables_;
};

/// Ranges [begin, end) of the tokens of which a part is in one of the spans, in order. `ids` are those of
/// `text`, encoded as a whole; `spans` are in order. The bytes of ids are looked for in the text, where
/// spaces may be missing that the tokenizer put before words, and white space may stand that it dropped.
/// Where that fails because the text is normalized, the ids of the text up to each border have to be those
/// that the whole begins with. InputError where neither holds.
std::vector<std::pair<std::int32_t, std::int32_t>> tokens_in(const std::vector<TextSpan>& spans,
                                                             std::string_view text,
                                                             const std::vector<std::int32_t>& ids,
                                                             const Tokenizer& tokenizer);

}  // namespace mezzo
