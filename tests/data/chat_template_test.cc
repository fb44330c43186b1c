#include "mezzo/data/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

using Json = nlohmann::ordered_json;
using testing::ElementsAre;
using testing::HasSubstr;

const std::string folder = MEZZO_TEST_DATA "/chat/";

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

/// tests/goldens/make_chat_vectors.py
const Json& vectors() {
  static const Json document = Json::parse(text_of(folder + "templates.json"));
  return document;
}

ChatTemplate template_named(const std::string& name) {
  return ChatTemplate(text_of(folder + "templates/" + name), name, vectors()["tokens"]);
}

Messages conversation_of(const Json& vector) {
  return vectors()["conversations"][vector["conversation"].get<std::size_t>()].get<Messages>();
}

TEST(ChatTemplate, RendersAsTransformersDoes) {
  for (const Json& vector : vectors()["cases"]) {
    const auto name = vector["template"].get<std::string>();
    const ChatTemplate chat = template_named(name);
    for (const bool add : {false, true}) {
      const Json& expected = vector["texts"][add ? 1 : 0];
      Json found;  // null: refused
      try {
        found = chat.render(conversation_of(vector), add);
      } catch (const InputError&) {
      }
      EXPECT_EQ(found, expected) << name << ", conversation " << vector["conversation"];
    }
  }
}

TEST(ChatTemplate, MarksTheTokensThatTransformersMarks) {
  const ChatTemplate chat = template_named("chatml_generation.jinja");
  for (const Json& vector : vectors()["masks"]) {
    const auto tokenizer =
        load_tokenizer(MEZZO_TEST_DATA "/" + vector["tokenizer"].get<std::string>() + ".json");
    const ChatTemplate::Conversation found = chat.conversation(conversation_of(vector));
    const std::vector<std::int32_t> ids = tokenizer->encode(found.text, false);
    EXPECT_EQ(ids, vector["ids"].get<std::vector<std::int32_t>>());
    std::string mask(ids.size(), '0');
    for (const auto& [begin, end] : tokens_in(found.spans, found.text, ids, *tokenizer)) {
      for (auto t = begin; t < end; ++t) mask[static_cast<std::size_t>(t)] = '1';
    }
    EXPECT_EQ(mask, vector["mask"].get<std::string>())
        << vector["tokenizer"] << ", conversation " << vector["conversation"];
  }
}

/// What the assistant says in a conversation, as a template writes it.
std::vector<std::string> said(const std::string& name, std::size_t conversation) {
  const ChatTemplate::Conversation found =
      template_named(name).conversation(vectors()["conversations"][conversation].get<Messages>());
  std::vector<std::string> pieces;
  for (const TextSpan& span : found.spans)
    pieces.push_back(found.text.substr(span.begin, span.end - span.begin));
  return pieces;
}

TEST(ChatTemplate, FindsTheTurnsWithTheirEnds) {
  EXPECT_THAT(said("chatml.jinja", 2), ElementsAre("1<|im_end|>", "2<|im_end|>", "3<|im_end|>"));
  EXPECT_THAT(said("chatml_generation.jinja", 2), ElementsAre("1<|im_end|>", "2<|im_end|>", "3<|im_end|>"));
  EXPECT_THAT(said("llama2.jinja", 2), ElementsAre(" 1 </s>", " 2 </s>", " 3 </s>"));
  EXPECT_THAT(said("llama3.jinja", 2), ElementsAre("1<|eot_id|>", "2<|eot_id|>", "3<|eot_id|>"));
  EXPECT_THAT(said("llama31.jinja", 3), ElementsAre("around<|eot_id|>", "<|eot_id|>"));
  EXPECT_THAT(said("gemma.jinja", 1), ElementsAre("4<end_of_turn>"));
  EXPECT_THAT(said("zephyr.jinja", 0), ElementsAre("Hello!</s>"));
  EXPECT_THAT(said("macros.jinja", 3), ElementsAre("around<|end|>", "<|end|>"));
  EXPECT_THAT(said("chatml.jinja", 8), ElementsAre("Once<|im_end|>", "more<|im_end|>"));
  EXPECT_THAT(said("chatml.jinja", 7), ElementsAre());
  // Without the generation prompt this one ends with an end token, which closes no turn but the last.
  EXPECT_THAT(said("phi3.jinja", 2), ElementsAre("1<|end|>", "2<|end|>", "3<|end|>\n</s>"));
  // The system's words move to the last question: the text before a turn is not the beginning of the whole.
  EXPECT_THAT(said("mistral.jinja", 0), ElementsAre(" Hello!</s>"));
  try {
    said("mistral.jinja", 2);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("message 3 does not begin where the generation prompt ends; put {% generation %}"));
  }
}

TEST(ChatTemplate, CountsWhatIsLeftOfATurnWhoseThinkingIsDropped) {
  EXPECT_THAT(said("qwen3.jinja", 6),
              ElementsAre("First.<|im_end|>", "<think>\nhm hm\n</think>\n\nSecond.<|im_end|>"));
  EXPECT_THAT(said("qwen3.jinja", 0), ElementsAre("<think>\n\n</think>\n\nHello!<|im_end|>"));
  EXPECT_THAT(said("qwen3.jinja", 2),
              ElementsAre("1<|im_end|>", "2<|im_end|>", "<think>\n\n</think>\n\n3<|im_end|>"));
}

TEST(ChatTemplate, IsReadFromTheFilesThatModelsHave) {
  const test::ScratchFolder scratch;
  const auto tokenizer = load_tokenizer(MEZZO_TEST_DATA "/tokenizers/qwen2.json");
  const auto write = [&](const char* name, const Json& json) { std::ofstream(scratch / name) << json; };
  const auto render = [&] {
    return ChatTemplate::load(scratch.path(), *tokenizer).value().render({}, false);
  };
  EXPECT_FALSE(ChatTemplate::load(scratch.path(), *tokenizer).has_value());
  write("tokenizer_config.json", {{"pad_token", {{"content", "<pad>"}}}});
  EXPECT_FALSE(ChatTemplate::load(scratch.path(), *tokenizer).has_value());
  write("chat_template.json", {{"chat_template", "json{{ pad_token }}"}});
  EXPECT_EQ(render(), "json<pad>");
  write("tokenizer_config.json",
        {{"chat_template",
          {{{"name", "tool_use"}, {"template", "x"}}, {{"name", "default"}, {"template", "list"}}}}});
  EXPECT_EQ(render(), "list");
  write("tokenizer_config.json", {{"chat_template", "text"}});
  EXPECT_EQ(render(), "text");
  std::ofstream(scratch / "chat_template.jinja") << "file";
  EXPECT_EQ(render(), "file");
  std::ofstream(scratch / "chat_template.jinja") << "\n{{ a|sum }}";
  try {
    render();
    FAIL();
  } catch (const InputError& error) {
    EXPECT_EQ(error.what(), (scratch / "chat_template.jinja") + ", line 2: the filter sum is not served");
  }
}

/// Texts of ids, and the ids of a text that was told beforehand.
class ToldTokenizer final : public Tokenizer {
 public:
  ToldTokenizer(std::vector<std::string> pieces,
                std::vector<std::pair<std::string, std::vector<std::int32_t>>> ids)
      : pieces_(std::move(pieces)), ids_(std::move(ids)) {}
  std::vector<std::int32_t> encode(std::string_view text, bool) const override {
    for (const auto& [known, ids] : ids_) {
      if (known == text) return ids;
    }
    return {99};
  }
  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    for (const std::int32_t id : ids) text += pieces_[static_cast<std::size_t>(id)];
    return text;
  }
  std::optional<std::int32_t> start_token() const override { return std::nullopt; }

 private:
  std::vector<std::string> pieces_;
  std::vector<std::pair<std::string, std::vector<std::int32_t>>> ids_;
};

TEST(ChatTemplate, TokensAreFoundByTheirBytes) {
  using testing::Pair;
  //                            0      1       2     3       4       5
  const ToldTokenizer tokenizer({"<u>", " Hi", "<a>", " yes", "</s>", "\n"}, {});
  // A space that the tokenizer put before a word, and a line feed that it dropped behind a token.
  EXPECT_THAT(tokens_in({{9, 16}}, "<u>Hi<a>\nyes</s>\n", {0, 1, 2, 3, 4}, tokenizer),
              ElementsAre(Pair(3, 5)));
  EXPECT_THAT(tokens_in({{6, 11}}, "<u> Hi<a>\n yes</s>", {0, 1, 2, 5, 3, 4}, tokenizer),
              ElementsAre(Pair(2, 5)));
  // A token on the border counts; an empty span has none.
  EXPECT_THAT(tokens_in({{5, 6}}, "<u> Hi<a>", {0, 1, 2}, tokenizer), ElementsAre(Pair(1, 2)));
  EXPECT_THAT(tokens_in({{3, 3}, {6, 9}}, "<u> Hi<a>", {0, 1, 2}, tokenizer), ElementsAre(Pair(2, 3)));
}

TEST(ChatTemplate, WhereTheTextIsNormalizedBordersAreEncoded) {
  using testing::Pair;
  const ToldTokenizer tokenizer({"hi", "<a>", "yes"}, {{"HI<a>", {0, 1}}, {"HI<a>YES", {0, 1, 2}}});
  EXPECT_THAT(tokens_in({{5, 8}}, "HI<a>YES", {0, 1, 2}, tokenizer), ElementsAre(Pair(2, 3)));
  EXPECT_THROW(tokens_in({{4, 8}}, "HI<a>YES", {0, 1, 2}, tokenizer), InputError);
}

}  // namespace
}  // namespace mezzo
