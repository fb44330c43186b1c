// Tokenizers without a tokenizer.json: tokenizer.model against SentencePiece and transformers 4
// (tests/goldens/make_sentencepiece_vectors.py), vocab.json with merges.txt, and what is refused.
#include "mezzo/data/tokenizer_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "mezzo/core/error.h"
#include "mezzo/data/tokenizer.h"
#include "mezzo/io/files.h"
#include "mezzo/io/json_file.h"
#include "scratch.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;
using testing::AllOf;
using testing::HasSubstr;

const std::string data = MEZZO_TEST_DATA "/";

std::string refusal_of(const std::string& path) {
  return test::message_or_nothing<InputError>([&] { load_tokenizer(path); });
}

// ---- SentencePiece --------------------------------------------------------------------------------------

class SentencePiece : public testing::TestWithParam<const char*> {};

TEST_P(SentencePiece, EncodesAndDecodesAsTransformersDoes) {
  const std::string folder = data + "sentencepiece/" + GetParam();
  const auto tokenizer = load_tokenizer(folder);
  const Json texts = read_json_file(data + "pipelines/texts.json");
  const Json expected = read_json_file(folder + ".ids.json");
  ASSERT_EQ(texts.size(), expected["ids"].size());
  ASSERT_GT(expected["decoded"].size(), 20u);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto text = texts[i].get<std::string>();
    const auto ids = expected["ids"][i].get<Ids>();
    EXPECT_EQ(tokenizer->encode(text, false), ids) << "text " << i << ": " << texts[i];
    Ids around = expected["prefix"].get<Ids>();
    around.insert(around.end(), ids.begin(), ids.end());
    for (const Json& id : expected["suffix"]) around.push_back(id.get<std::int32_t>());
    EXPECT_EQ(tokenizer->encode(text, true), around) << "text " << i;
    const auto decoded = expected["decoded"].find(std::to_string(i));
    if (decoded != expected["decoded"].end() && decoded->find("\uFFFD") == decoded->end()) {
      EXPECT_EQ(tokenizer->decode(ids), decoded->get<std::string>()) << "text " << i;
    }
  }
}

TEST_P(SentencePiece, AContinuationIsWhatTheWholeTextHasThere) {
  const auto tokenizer = load_tokenizer(data + "sentencepiece/" + GetParam());
  for (const char* option : {" was slow", " film", "  film", "</s>", "."}) {
    Ids ids = tokenizer->encode("it is (the film)", false);
    const Ids more = tokenizer->encode_continuation(option);
    ids.insert(ids.end(), more.begin(), more.end());
    EXPECT_EQ(ids, tokenizer->encode(std::string("it is (the film)") + option, false)) << option;
  }
  EXPECT_EQ(tokenizer->encode_continuation("9").size(), 1u);
  EXPECT_EQ(tokenizer->encode_continuation(""), Ids{});
}

TEST_P(SentencePiece, TakesLongRunsInBoundedTime) {
  const auto tokenizer = load_tokenizer(data + "sentencepiece/" + GetParam());
  for (const char* unit : {"a", " ", "\u0301", "\u0378", "9", "\u2581", "<s>", "the "}) {
    std::string text;
    while (text.size() < 100'000) text += unit;
    EXPECT_LE(tokenizer->encode(text, false).size(), 2 * text.size()) << unit;
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizer, SentencePiece,
                         testing::Values("llama", "llama_new", "gemma", "unigram", "unigram_new"),
                         [](const auto& suite) { return std::string(suite.param); });

TEST(SentencePieceFiles, NameTheirTokens) {
  const auto llama = load_tokenizer(data + "sentencepiece/llama");
  EXPECT_EQ(llama->bos_token(), (NamedToken{1, "<s>"}));
  EXPECT_EQ(llama->eos_token(), (NamedToken{2, "</s>"}));
  EXPECT_EQ(llama->start_token(), 1);
  const auto gemma = load_tokenizer(data + "sentencepiece/gemma");
  EXPECT_EQ(gemma->bos_token(), (NamedToken{2, "<bos>"}));
  EXPECT_EQ(gemma->end_token(), 1);
  // The file by itself, as beside a tokenizer_config.json that says nothing else.
  const auto alone = load_tokenizer(data + "sentencepiece/llama/tokenizer.model");
  EXPECT_EQ(alone->encode("the film</s>", true), llama->encode("the film</s>", true));
  EXPECT_NE(tokenizer_hash(data + "sentencepiece/llama"), tokenizer_hash(data + "sentencepiece/llama_new"));
}

TEST(SentencePieceFiles, TakeAddedTokensFromTheFilesBeside) {
  const test::ScratchFolder folder;
  std::filesystem::copy_file(data + "sentencepiece/llama/tokenizer.model",
                             folder.path() + "/tokenizer.model");
  const std::int32_t size = 420;
  folder.write("added_tokens.json", Json{{"<new>", size}, {"<pad>", size + 1}}.dump());
  folder.write("special_tokens_map.json", Json{{"pad_token", "<pad>"}, {"eos_token", "<new>"}}.dump());
  EXPECT_EQ(load_tokenizer(folder.path())->encode("<new><pad>", false), (Ids{size, size + 1}));
  EXPECT_EQ(load_tokenizer(folder.path())->end_token(), size);
  folder.write("tokenizer_config.json", Json{{"add_bos_token", false}, {"add_eos_token", true}}.dump());
  EXPECT_EQ(load_tokenizer(folder.path())->encode("<pad>", true), (Ids{size + 1, size}));
  folder.write("added_tokens.json", Json{{"<new>", size + 5}}.dump());
  EXPECT_THAT(refusal_of(folder.path()), HasSubstr("added_tokens[0].id is 425; expected 420"));
}

TEST(SentencePieceFiles, RefuseByNameWhatIsNotServed) {
  const test::ScratchFolder folder;
  std::filesystem::copy_file(data + "sentencepiece/llama/tokenizer.model",
                             folder.path() + "/tokenizer.model");
  const auto with = [&](const Json& config) {
    folder.write("tokenizer_config.json", config.dump());
    return refusal_of(folder.path());
  };
  EXPECT_EQ(with(Json::object()), "nothing");
  EXPECT_THAT(with({{"tokenizer_class", "T5Tokenizer"}}),
              HasSubstr("tokenizer_config.json: tokenizer_class is \"T5Tokenizer\", which is not served"));
  EXPECT_THAT(with({{"sp_model_kwargs", {{"enable_sampling", true}}}}), HasSubstr("sp_model_kwargs is"));
  EXPECT_THAT(with({{"legacy", false}, {"add_prefix_space", false}}), HasSubstr("add_prefix_space is false"));
  folder.write("tokenizer.model", "no model");
  EXPECT_THAT(with(Json::object()), HasSubstr("tokenizer.model is no SentencePiece model"));
  folder.write("tokenizer.model", "");
  EXPECT_THAT(with(Json::object()), HasSubstr("tokenizer.model is no SentencePiece model"));
}

// ---- vocab.json and merges.txt ----------------------------------------------------------------------------

/// A folder with the vocabulary and merges of a tokenizer.json.
class Files {
 public:
  explicit Files(const std::string& tokenizer) {
    const Json model = read_json_file(tokenizer)["model"];
    write("vocab.json", model["vocab"].dump());
    std::string merges = "#version: 0.2\n";
    for (const Json& merge : model["merges"]) {
      merges += merge[0].get<std::string>() + " " + merge[1].get<std::string>() + "\n";
    }
    write("merges.txt", merges);
  }
  void write(const std::string& name, const std::string& text) { folder_.write(name, text); }
  void config(const Json& document) { write("tokenizer_config.json", document.dump()); }
  const std::string& path() const { return folder_.path(); }

 private:
  test::ScratchFolder folder_;
};

void expect_vectors(const std::string& path, const std::string& texts, const std::string& vectors) {
  const auto tokenizer = load_tokenizer(path);
  const Json all = read_json_file(texts);
  const Json expected = read_json_file(vectors);
  for (std::size_t i = 0; i < 120; ++i) {
    const auto ids = expected["ids"][i].get<Ids>();
    EXPECT_EQ(tokenizer->encode(all[i].get<std::string>(), false), ids) << i;
  }
}

TEST(VocabularyAndMerges, AreGpt2s) {
  Files files(data + "tokenizers/gpt2.json");
  files.config({{"tokenizer_class", "GPT2Tokenizer"}});
  expect_vectors(files.path(), data + "tokenizers/texts.json", data + "tokenizers/gpt2.ids.json");
  const auto gpt2 = load_tokenizer(files.path());
  EXPECT_EQ(gpt2->encode("a", true), gpt2->encode("a", false));
  ASSERT_TRUE(gpt2->eos_token());
  EXPECT_EQ(gpt2->eos_token()->text, "<|endoftext|>");
  // OPT's files say that a text has a start token.
  files.config({{"tokenizer_class", "GPT2Tokenizer"}, {"add_bos_token", true}, {"add_prefix_space", true}});
  const auto opt = load_tokenizer(files.path());
  EXPECT_EQ(opt->start_token(), gpt2->end_token());
  EXPECT_EQ(opt->encode("a", false), gpt2->encode(" a", false));
}

TEST(VocabularyAndMerges, AreQwen2s) {
  Files files(data + "pipelines/qwen.json");
  files.config({{"tokenizer_class", "Qwen2Tokenizer"}, {"eos_token", "<|endoftext|>"}});
  expect_vectors(files.path(), data + "pipelines/texts.json", data + "pipelines/qwen.ids.json");
}

TEST(VocabularyAndMerges, NeedTheirClass) {
  Files files(data + "tokenizers/gpt2.json");
  EXPECT_THAT(refusal_of(files.path()), HasSubstr("tokenizer_config.json: tokenizer_class is missing"));
  files.config({{"tokenizer_class", "RobertaTokenizer"}});
  EXPECT_THAT(refusal_of(files.path()),
              HasSubstr("tokenizer_class is \"RobertaTokenizer\", which is not served"));
  files.config({{"tokenizer_class", "GPT2Tokenizer"}});
  files.write("merges.txt", "#version: 0.2\na b c\n");
  EXPECT_THAT(refusal_of(files.path()), HasSubstr("merges.txt: model.merges[1] is \"a b c\""));
}

// ---- neither ----------------------------------------------------------------------------------------------

TEST(TokenizerFiles, OfTiktokenAreNamedAsWhatTheyAre) {
  const test::ScratchFolder folder;
  EXPECT_THAT(
      refusal_of(folder.path()),
      HasSubstr("has no tokenizer; expected a tokenizer.json, a tokenizer.model, or a vocab.json with"));
  const std::string file = folder.write("qwen.tiktoken", "IQ== 0\nIg== 1\n");
  EXPECT_THAT(refusal_of(folder.path()),
              HasSubstr("/qwen.tiktoken: a tiktoken vocabulary, which is not served"));
  EXPECT_THAT(refusal_of(file), HasSubstr("/qwen.tiktoken: a tiktoken vocabulary"));
  folder.write("tokenizer.model", "IQ== 0\nIg== 1\n");
  EXPECT_THAT(refusal_of(folder.path()), HasSubstr("/tokenizer.model: a tiktoken vocabulary"));
}

}  // namespace
}  // namespace mezzo
