// Chat: a conversation, of which the assistant's turns count.
#include <nlohmann/json.hpp>

#include "mezzo/data/chat.h"
#include "mezzo/data/task_kind.h"

namespace mezzo {

namespace {

class Chat final : public TaskKind {
 public:
  Chat(const TaskContext& context, const ChatTemplate& chat)
      : encoder_(context), chat_(chat), append_eos_(context.config.append_eos) {}
  EncodedRecord encode(const nlohmann::json& record, const std::string& where) const override;

 private:
  ExampleEncoder encoder_;
  const ChatTemplate& chat_;
  bool append_eos_;
};

/// The first tokens that count are the beginning of the one option, what is before them is the prompt.
Example example_of(ChatTokens tokens) {
  const std::int32_t begin = tokens.counted.front().first;
  const auto border = tokens.ids.begin() + begin;
  for (auto& [first, last] : tokens.counted) {
    first -= begin;
    last -= begin;
  }
  return {.prompt = {tokens.ids.begin(), border},
          .options = {{border, tokens.ids.end()}},
          .label = 0,
          .counted = std::move(tokens.counted)};
}

EncodedRecord Chat::encode(const nlohmann::json& record, const std::string& where) const {
  EncodedRecord encoded;
  ChatTokens tokens = chat_tokens(messages_of(record, where), chat_, encoder_.tokenizer(),
                                  encoder_.max_length(), append_eos_, where);
  if (encoder_.takes(tokens.whole_tokens, where, encoded)) encoded.example = example_of(std::move(tokens));
  return encoded;
}

}  // namespace

std::unique_ptr<TaskKind> make_chat(const TaskContext& context, const ChatTemplate& chat) {
  return std::make_unique<Chat>(context, chat);
}

}  // namespace mezzo
