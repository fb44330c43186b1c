#include "mezzo/data/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/data/loss_batch.h"
#include "mezzo/data/task.h"

namespace mezzo {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

/// A token a mark <...>, and else one a character.
class MarkTokenizer final : public Tokenizer {
 public:
  std::vector<std::int32_t> encode(std::string_view text, bool) const override {
    std::vector<std::int32_t> ids;
    while (!text.empty()) {
      const std::size_t size = text[0] == '<' ? text.find('>') + 1 : 1;
      const auto known = std::ranges::find(texts_, text.substr(0, size));
      ids.push_back(static_cast<std::int32_t>(known - texts_.begin()));
      if (known == texts_.end()) texts_.emplace_back(text.substr(0, size));
      text.remove_prefix(size);
    }
    return ids;
  }
  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    for (const std::int32_t id : ids) text += texts_[static_cast<std::size_t>(id)];
    return text;
  }
  std::optional<std::int32_t> start_token() const override { return 0; }
  std::optional<NamedToken> eos_token() const override { return NamedToken{1, "</s>"}; }

 private:
  mutable std::vector<std::string> texts_ = {"<s>", "</s>"};
};

ChatTemplate chat() {
  return ChatTemplate(
      "{{ bos_token }}{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}<e>{% endfor %}"
      "{% if add_generation_prompt %}<a>{% endif %}",
      "template", {{"bos_token", "<s>"}});
}

std::string error_of(const char* record) {
  try {
    messages_of(json::parse(record), "d.jsonl:3");
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Chat, ReadsBothForms) {
  const Messages messages = messages_of(
      json::parse(R"({"messages": [{"content": "Hi", "role": "user", "name": "Ann", "tool_calls": null}]})"),
      "");
  EXPECT_EQ(nlohmann::ordered_json(messages).dump(), R"([{"role":"user","content":"Hi","name":"Ann"}])");
  const Messages share_gpt = messages_of(json::parse(R"({"id": 1, "conversations": [
      {"from": "system", "value": "s"}, {"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]})"),
                                         "");
  EXPECT_EQ(
      nlohmann::ordered_json(share_gpt).dump(),
      R"([{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":"a"}])");
}

TEST(Chat, ErrorsNameThePlace) {
  EXPECT_EQ(error_of(R"({"prompt": "a"})"),
            "d.jsonl:3: neither of the fields messages and conversations; expected one of the two");
  EXPECT_THAT(error_of(R"({"messages": [], "conversations": []})"), HasSubstr("both of the fields"));
  EXPECT_EQ(error_of(R"({"messages": "a"})"), "d.jsonl:3: messages is string, expected a list of messages");
  EXPECT_THAT(error_of(R"({"messages": []})"), HasSubstr("an empty list"));
  EXPECT_EQ(error_of(R"({"messages": [{"role": "user", "content": "a"}, 5]})"),
            "d.jsonl:3: messages[1] is number, expected an object");
  EXPECT_EQ(error_of(R"({"messages": [{"content": "a"}]})"), "d.jsonl:3: messages[0]: role is missing");
  EXPECT_EQ(error_of(R"({"messages": [{"role": "user", "content": [{"type": "image"}]}]})"),
            "d.jsonl:3: messages[0]: content is array, expected a string");
  EXPECT_EQ(error_of(R"({"conversations": [{"from": "tool", "value": "a"}]})"),
            "d.jsonl:3: conversations[0]: from is \"tool\", expected human, gpt or system");
}

/// The text of a conversation's tokens, those that count in brackets.
std::string marked(const char* record, std::int64_t max_length = 1000, const ChatTemplate& written = chat(),
                   bool append_eos = true) {
  const MarkTokenizer tokenizer;
  ChatTokens tokens;
  try {
    tokens = chat_tokens(messages_of(json::parse(record), "f:1"), written, tokenizer, max_length, append_eos,
                         "f:1");
  } catch (const InputError& error) {
    return error.what();
  }
  EXPECT_LE(static_cast<std::int64_t>(tokens.ids.size()), max_length);
  std::string text;
  std::size_t at = 0;
  for (const auto& [begin, end] : tokens.counted) {
    const auto piece = [&](auto from, auto to) {
      return tokenizer.decode(std::span(tokens.ids)
                                  .subspan(static_cast<std::size_t>(from),
                                           static_cast<std::size_t>(to) - static_cast<std::size_t>(from)));
    };
    text += piece(at, begin) + '[' + piece(begin, end) + ']';
    at = static_cast<std::size_t>(end);
  }
  EXPECT_EQ(at, tokens.ids.size());
  return text;
}

TEST(Chat, TheAssistantsTurnsCount) {
  EXPECT_EQ(marked(R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "xy"},
                                    {"role": "user", "content": "r"}, {"role": "assistant", "content": ""},
                                    {"role": "user", "content": "not answered"}]})"),
            "<s><u>q<e><a>[xy<e>]<u>r<e><a>[<e>]");
  EXPECT_EQ(marked(R"({"messages": [{"role": "user", "content": "q"}]})"),
            "f:1: the assistant says nothing in this conversation");
}

TEST(Chat, LongConversationsLoseTheOldestTurns) {
  const char* const record = R"({"messages": [{"role": "system", "content": "s"},
      {"role": "user", "content": "1"}, {"role": "assistant", "content": "a"},
      {"role": "user", "content": "2"}, {"role": "assistant", "content": "b"},
      {"role": "user", "content": "3"}, {"role": "assistant", "content": "cccc"}, {"role": "user", "content": "4"}]})";
  EXPECT_EQ(marked(record, 25), "<s><s>s<e><u>1<e><a>[a<e>]<u>2<e><a>[b<e>]<u>3<e><a>[cccc<e>]");
  EXPECT_EQ(marked(record, 24), "<s><s>s<e><u>2<e><a>[b<e>]<u>3<e><a>[cccc<e>]");
  EXPECT_EQ(marked(record, 18), "<s><s>s<e><u>3<e><a>[cccc<e>]");
  EXPECT_EQ(marked(record, 13), "<s><s>s<e><u>3<e><a>[cccc<e>]");
  EXPECT_EQ(marked(record, 12), "<s>s<e><u>3<e><a>[cccc<e>]");
  EXPECT_EQ(marked(record, 4), "<s>[cc<e>]");
}

TEST(Chat, AnEndTokenClosesWhatTheTemplateLeavesOpen) {
  const ChatTemplate open(
      "{{ bos_token }}{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% endfor %}"
      "{% if add_generation_prompt %}<a>{% endif %}",
      "template", {{"bos_token", "<s>"}});
  const char* const record = R"({"messages": [{"role": "user", "content": "q"},
      {"role": "assistant", "content": "x"}, {"role": "user", "content": "r"},
      {"role": "assistant", "content": "y "}]})";
  EXPECT_EQ(marked(record, 1000, open), "<s><u>q<a>[x]<u>r<a>[y </s>]");
  EXPECT_EQ(marked(record, 1000, open, false), "<s><u>q<a>[x]<u>r<a>[y ]");
  EXPECT_EQ(marked(record), marked(record, 1000, chat(), false));
}

TEST(Chat, OverlongOnesAreCounted) {
  const MarkTokenizer tokenizer;
  TaskConfig config;
  config.type = TaskType::chat;
  const json record = {
      {"messages", {{{"role", "user"}, {"content", "q"}}, {{"role", "assistant"}, {"content", "x"}}}}};
  EXPECT_EQ(Task(config, tokenizer, 7, chat()).encode(record, "f:1").counts.overlong,
            0);  // <s><u>q<e><a>x<e>
  EXPECT_EQ(Task(config, tokenizer, 6, chat()).encode(record, "f:1").counts.overlong, 1);
  config.overlong = Overlong::skip;
  EXPECT_TRUE(Task(config, tokenizer, 6, chat()).encode(record, "f:1").skipped);
}

TEST(Chat, OnlyTokensThatCountAreTargets) {
  const MarkTokenizer tokenizer;
  TaskConfig config;
  config.type = TaskType::chat;
  config.loss = TaskLoss::language_model;
  const Task task(config, tokenizer, 100, chat());
  const json record = json::parse(R"({"messages": [
      {"role": "user", "content": "q"}, {"role": "assistant", "content": "xy"},
      {"role": "user", "content": "r"}, {"role": "assistant", "content": "z"}]})");
  const Example example = task.encode(record, "f:1").example;
  EXPECT_EQ(tokenizer.decode(example.prompt), "<s><u>q<e><a>");
  const Example* const one = &example;
  const LossBatch batch = pack({&one, 1}, task.loss(), false);
  EXPECT_EQ(tokenizer.decode(batch.packed.tokens), "<s><u>q<e><a>xy<e><u>r<e><a>z");  // all but the last
  EXPECT_EQ(tokenizer.decode(batch.packed.target_tokens), "xy<e>z<e>");
  // The rows before the targets: <a> x y, and <a> z of the second answer.
  EXPECT_THAT(batch.packed.loss_rows, ElementsAre(4, 5, 6, 11, 12));
  EXPECT_THAT(batch.packed.target_rows, ElementsAre(0, 1, 2, 3, 4));
  const std::vector<float> log_probabilities = {-1, -2, -4, -8, -16};
  const SliceLoss loss = loss_of(batch, log_probabilities);
  EXPECT_EQ(loss.sum, 31);
  EXPECT_EQ(loss.weight, 5);
}

}  // namespace
}  // namespace mezzo
