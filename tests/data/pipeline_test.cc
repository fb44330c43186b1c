// Every kind of tokenizer.json against Hugging Face tokenizers (tests/goldens/make_pipeline_vectors.py).
#include "mezzo/data/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"
#include "scratch.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;
using testing::HasSubstr;

const std::string fixtures = MEZZO_TEST_DATA "/pipelines/";

Json fixture(const std::string& name) { return read_json_file(fixtures + name); }

class Pipelines : public testing::TestWithParam<const char*> {};

TEST_P(Pipelines, EncodeAndDecodeAsHuggingFaceDoes) {
  const auto tokenizer = load_tokenizer(fixtures + GetParam() + ".json");
  const Json texts = fixture("texts.json");
  const Json expected = fixture(std::string(GetParam()) + ".ids.json");
  ASSERT_EQ(texts.size(), expected["ids"].size());
  ASSERT_GT(texts.size(), 170u);
  ASSERT_GE(expected["special"].size(), 12u);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto text = texts[i].get<std::string>();
    const auto ids = expected["ids"][i].get<Ids>();
    EXPECT_EQ(tokenizer->encode(text, false), ids) << "text " << i << ": " << texts[i];
    const auto decoded = expected["decoded"].value(std::to_string(i), text);
    // Bytes that are no character are U+FFFD there, and stay what they are here.
    if (decoded.find("\uFFFD") != std::string::npos && text.find("\uFFFD") == std::string::npos) continue;
    EXPECT_EQ(tokenizer->decode(ids), decoded) << "text " << i;
    if (i < expected["special"].size()) {
      EXPECT_EQ(tokenizer->encode(text, true), expected["special"][i].get<Ids>()) << "text " << i;
    }
  }
}

/// A step that looks at all pairs would take minutes here.
TEST_P(Pipelines, TakeLongRunsInBoundedTime) {
  const auto tokenizer = load_tokenizer(fixtures + GetParam() + ".json");
  for (const char* unit : {"a", " ", "\u0301", "\u0323\u0301", "\u1100", "\U0001F469\u200D", "\u0378", "9",
                           "e\u0301", "\u2581", "<s>", " x", "the "}) {
    std::string text;
    while (text.size() < 100'000) text += unit;
    EXPECT_LE(tokenizer->encode(text, false).size(), 4 * text.size()) << unit;
  }
}

TEST_P(Pipelines, AContinuationIsWhatTheWholeTextHasThere) {
  const auto tokenizer = load_tokenizer(fixtures + GetParam() + ".json");
  for (const char* option : {" was slow", " film", " (12)", " the film</s>"}) {
    Ids ids = tokenizer->encode("it is (the film)", false);
    const Ids more = tokenizer->encode_continuation(option);
    const std::string before = tokenizer->decode(ids);
    ids.insert(ids.end(), more.begin(), more.end());
    EXPECT_EQ(ids, tokenizer->encode(std::string("it is (the film)") + option, false)) << option;
    EXPECT_EQ(before + tokenizer->decode_continuation(more), tokenizer->decode(ids)) << option;
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizer, Pipelines,
                         testing::Values("llama", "phi3", "llama_metaspace", "mistral", "gemma", "qwen",
                                         "neox", "opt", "deepseek", "byte_level_normalizer", "t5", "xlmr",
                                         "unigram_bytes", "bert", "bert_cased", "stripped_accents", "clip",
                                         "prefixed_bpe"),
                         [](const auto& suite) { return std::string(suite.param); });

TEST(Pipeline, AContinuationGetsNoSpaceMark) {
  for (const char* name :
       {"llama", "phi3", "llama_metaspace", "mistral", "xlmr", "t5", "opt", "unigram_bytes"}) {
    const auto tokenizer = load_tokenizer(fixtures + name + std::string(".json"));
    const Ids marked = tokenizer->encode("9", false);
    const Ids plain = tokenizer->encode_continuation("9");
    EXPECT_EQ(plain, Ids{marked.back()}) << name;
    EXPECT_NE(plain, marked) << name;
    EXPECT_EQ(tokenizer->encode_continuation(""), Ids{});
    EXPECT_EQ(tokenizer->decode_continuation(tokenizer->encode_continuation(" film")), " film") << name;
  }
}

TEST(Pipeline, BytesThatAreNoCharacterDecodeToThemselves) {
  const auto tokenizer = load_tokenizer(fixtures + "llama.json");
  const Ids ids = tokenizer->encode_continuation("\u20AC");  // three bytes, no token
  ASSERT_EQ(ids.size(), 3u);
  EXPECT_EQ(tokenizer->decode(std::span(ids).first(2)), "\xE2\x82");
  EXPECT_EQ(tokenizer->decode(std::span(ids).last(1)), "\xAC");
}

TEST(Pipeline, ADamagedMapOfCharactersIsNamed) {
  Json document = fixture("t5.json");
  const test::ScratchFolder directory;
  Json& map = document["normalizer"]["normalizers"][0]["precompiled_charsmap"];
  map = "BAAAAAAAAPwA";  // one unit that leads far away
  const auto tokenizer = load_tokenizer(directory.write("tokenizer.json", document.dump()));
  try {
    tokenizer->encode("a", false);
    FAIL() << "the map is taken";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("normalizer.normalizers[0].precompiled_charsmap: the trie is damaged"));
  }
}

}  // namespace
}  // namespace mezzo
