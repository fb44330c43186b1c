// tokenizer_config.json beside tokenizer.json, against transformers 4.57 and 5.24
// (tests/goldens/make_tokenizer_config_vectors.py), and the tokenizer's hash.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/data/tokenizer.h"
#include "mezzo/io/json_file.h"
#include "scratch.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;
using testing::AllOf;
using testing::HasSubstr;

const std::string cases = MEZZO_TEST_DATA "/tokenizer_config/";

TEST(TokenizerConfig, MeansWhatTransformersMakesOfIt) {
  const Json expected = read_json_file(cases + "expected.json");
  // Here the two files contradict each other.
  const std::map<std::string, std::string> refused = {{"llama3-addbos-false", "add_bos_token is false"},
                                                      {"llamafast-addbos", "add_bos_token is true"}};
  std::size_t seen = 0;
  for (const auto& [name, versions] : expected["cases"].items()) {
    ++seen;
    if (const auto refusal = refused.find(name); refusal != refused.end()) {
      EXPECT_NE(versions["4.57.6"], versions["5.24.0"]);
      EXPECT_THAT(
          test::message_or_nothing<InputError>([&] { load_tokenizer(cases + name); }),
          AllOf(HasSubstr("/tokenizer_config.json: " + refusal->second), HasSubstr("post_processor")));
      continue;
    }
    const auto tokenizer = load_tokenizer(cases + name);
    const Json& ids = versions["5.24.0"];  // where the versions differ, as docs/tokenizers.md says
    for (std::size_t i = 0; i < expected["texts"].size(); ++i) {
      const auto text = expected["texts"][i].get<std::string>();
      EXPECT_EQ(tokenizer->encode(text, false), ids["plain"][i].get<Ids>()) << name << ": " << text;
      EXPECT_EQ(tokenizer->encode(text, true), ids["special"][i].get<Ids>()) << name << ": " << text;
    }
  }
  EXPECT_EQ(seen, 9u);
}

/// A model's directory with byte tokens, <s> 256 and </s> 257.
class Directory {
 public:
  Directory() : tokenizer_(read_json_file(cases + "ptf-pad/tokenizer.json")) {
    write("tokenizer.json", tokenizer_);
  }

  void write(const std::string& name, const Json& document) { folder_.write(name, document.dump()); }
  void config(const Json& document) { write("tokenizer_config.json", document); }
  Json& tokenizer() { return tokenizer_; }
  void write_tokenizer() { write("tokenizer.json", tokenizer_); }
  const std::string& path() const { return folder_.path(); }

  Ids ids(const std::string& text) const { return load_tokenizer(path())->encode(text, false); }
  std::string refusal() const {
    return test::message_or_nothing<InputError>([&] { load_tokenizer(path()); });
  }

 private:
  test::ScratchFolder folder_;
  Json tokenizer_;
};

Json token(const std::string& content, const Json& flags = Json::object()) {
  Json entry = {{"content", content}, {"single_word", false}, {"lstrip", false},
                {"rstrip", false},    {"normalized", false},  {"special", true}};
  entry.update(flags);
  return entry;
}

TEST(TokenizerConfig, TokensAreAddedInTransformersOrder) {
  Directory model;
  model.config({{"additional_special_tokens", {"<c>", token("<d>", {{"lstrip", true}})}},
                {"pad_token", "<b>"},
                {"bos_token", "<s>"},
                {"mask_token", ""},
                {"unk_token", nullptr},
                {"added_tokens_decoder", {{"258", token("<a>")}, {"97", nullptr}}}});
  EXPECT_THAT(model.refusal(), HasSubstr("added_tokens_decoder.97 is null; expected an object"));
  model.config({{"additional_special_tokens", {"<c>", token("<d>", {{"lstrip", true}})}},
                {"pad_token", "<b>"},
                {"bos_token", "<s>"},
                {"mask_token", ""},
                {"unk_token", nullptr},
                {"added_tokens_decoder", {{"258", token("<a>")}}}});
  EXPECT_EQ(model.ids("<a><b><c> <d><s>"), (Ids{258, 259, 260, 261, 256}));
  model.config({{"extra_special_tokens", {{"user", "<c>"}}}});
  EXPECT_EQ(model.ids("<c>"), Ids{258});
  model.config({{"extra_special_tokens", {"<c>"}}, {"additional_special_tokens", {"<d>"}}});
  EXPECT_THAT(model.refusal(), HasSubstr("additional_special_tokens is a list of 1; expected the same as"));
}

TEST(TokenizerConfig, ATokenOfTheVocabularyKeepsItsId) {
  Directory model;
  const Ids a = model.ids("a");
  model.config({{"pad_token", "a"}});
  EXPECT_EQ(model.ids("a"), a);
  EXPECT_EQ(model.ids("cat").size(), 3u);
  model.config({{"added_tokens_decoder", {{"258", token("a")}}}});
  EXPECT_THAT(model.refusal(), HasSubstr(fmt::format("expected it at {}", a[0])));
}

TEST(TokenizerConfig, FlagsOfAddedTokensDecoderCount) {
  Directory model;
  EXPECT_EQ(model.ids("x </s>").size(), 3u);
  model.config({{"added_tokens_decoder", {{"257", token("</s>", {{"lstrip", true}})}}}});
  EXPECT_EQ(model.ids("x </s>").size(), 2u);
  model.config({{"eos_token", token("</s>", {{"lstrip", true}})}});  // those of a named token do not
  EXPECT_EQ(model.ids("x </s>").size(), 3u);
}

TEST(TokenizerConfig, RefusesAnIdThatHuggingFaceWouldNotGive) {
  Directory model;
  model.config({{"added_tokens_decoder", {{"300", token("<a>")}}}});
  EXPECT_THAT(model.refusal(),
              AllOf(HasSubstr("tokenizer_config.json: added_tokens_decoder.300 is the token"),
                    HasSubstr("expected it at 258")));
  model.config({{"added_tokens_decoder", {{"x", token("<a>")}}}});
  EXPECT_THAT(model.refusal(), HasSubstr("the key \"x\" is no id"));
}

TEST(TokenizerConfig, ThePrefixSpaceIsThatOfTheConfigForGpt2AndElseMustAgree) {
  Directory model;
  const auto ids_with = [&](bool in_tokenizer, const Json& config) {
    model.tokenizer()["pre_tokenizer"]["add_prefix_space"] = in_tokenizer;
    model.write_tokenizer();
    model.config(config);
    return model.ids("a").size();
  };
  const Json gpt2 = {{"tokenizer_class", "GPT2TokenizerFast"},
                     {"unk_token", "</s>"},
                     {"bos_token", "<s>"},
                     {"eos_token", "</s>"}};
  const auto with = [](Json config, const Json& value) {
    config["add_prefix_space"] = value;
    return config;
  };
  EXPECT_EQ(ids_with(true, gpt2), 1u);
  EXPECT_EQ(ids_with(true, with(gpt2, nullptr)), 2u);
  EXPECT_EQ(ids_with(true, with(gpt2, false)), 1u);
  EXPECT_EQ(ids_with(false, with(gpt2, true)), 2u);
  EXPECT_EQ(ids_with(true, Json::object()), 2u);
  EXPECT_EQ(ids_with(true, with(Json::object(), true)), 2u);
  EXPECT_THAT(test::message_or_nothing<InputError>([&] { ids_with(true, with(Json::object(), false)); }),
              AllOf(HasSubstr("tokenizer_config.json: add_prefix_space is false"), HasSubstr("says true")));
  EXPECT_THAT(test::message_or_nothing<InputError>([&] { ids_with(true, with(gpt2, "yes")); }),
              HasSubstr("add_prefix_space is \"yes\""));
}

TEST(TokenizerConfig, TheSpaceMarkMustAgreeToo) {
  Directory model;
  const auto refusal = [&](const char* part, const Json& step, bool value) {
    model.tokenizer()[part] = step;
    model.write_tokenizer();
    model.config({{"add_prefix_space", value}, {"tokenizer_class", "LlamaTokenizer"}});
    return model.refusal();
  };
  const Json prepend = {{"type", "Sequence"},
                        {"normalizers", {{{"type", "Prepend"}, {"prepend", "\u2581"}}}}};
  model.tokenizer()["pre_tokenizer"] = nullptr;
  EXPECT_EQ(refusal("normalizer", prepend, true), "nothing");
  EXPECT_THAT(refusal("normalizer", prepend, false),
              AllOf(HasSubstr("tokenizer_config.json: add_prefix_space is false"), HasSubstr("says true")));
  model.tokenizer()["normalizer"] = nullptr;
  const auto metaspace = [](const char* scheme) {
    return Json{{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", scheme}};
  };
  EXPECT_EQ(refusal("pre_tokenizer", metaspace("first"), true), "nothing");
  EXPECT_EQ(refusal("pre_tokenizer", metaspace("never"), false), "nothing");
  EXPECT_THAT(refusal("pre_tokenizer", metaspace("never"), true), HasSubstr("says false"));
}

TEST(TokenizerConfig, Gpt2HasAnEndTokenByDefault) {
  Directory model;
  model.config({{"tokenizer_class", "GPT2Tokenizer"}});
  EXPECT_EQ(model.ids("a<|endoftext|>").back(), 258);
}

TEST(TokenizerConfig, StartAndEndTokensMustBeThoseOfThePostProcessor) {
  Directory model;
  const auto refusal = [&](const Json& config) {
    model.config(config);
    return model.refusal();
  };
  model.tokenizer()["post_processor"] = {
      {"type", "RobertaProcessing"}, {"cls", {"<s>", 256}}, {"sep", {"</s>", 257}}};
  model.write_tokenizer();
  const Json named = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  const auto with = [&](const char* key, bool value) {
    Json config = named;
    config[key] = value;
    return config;
  };
  EXPECT_EQ(refusal(with("add_bos_token", true)), "nothing");
  EXPECT_EQ(refusal(with("add_eos_token", true)), "nothing");
  EXPECT_THAT(refusal(with("add_bos_token", false)), HasSubstr("puts \"<s>\" first"));
  EXPECT_THAT(refusal(with("add_eos_token", false)), HasSubstr("puts \"</s>\" last"));
  EXPECT_THAT(refusal({{"bos_token", "</s>"}, {"add_bos_token", true}}), HasSubstr("puts \"<s>\" first"));
  EXPECT_EQ(refusal({{"bos_token", "</s>"}, {"add_bos_token", false}}), "nothing");
}

TEST(TokenizerConfig, RefusesWhatWouldMakeAnotherTokenizer) {
  Directory model;
  const auto refusal = [&](const Json& config) {
    model.config(config);
    return model.refusal();
  };
  EXPECT_THAT(refusal({{"split_special_tokens", true}}),
              HasSubstr("split_special_tokens is true, which is not"));
  EXPECT_EQ(refusal({{"split_special_tokens", false}}), "nothing");
  EXPECT_THAT(refusal({{"auto_map", {{"AutoTokenizer", {"a.B", nullptr}}}}}), HasSubstr("auto_map"));
  EXPECT_EQ(refusal({{"auto_map", {{"AutoConfig", "a.B"}}}}), "nothing");
  EXPECT_THAT(refusal({{"image_token", "<i>"}}), HasSubstr("image_token is \"<i>\", which is not served"));
  EXPECT_EQ(refusal({{"image_token", "</s>"}}), "nothing");
  EXPECT_THAT(refusal(Json::array()), HasSubstr("tokenizer_config.json is a list of 0; expected an object"));
  EXPECT_THAT(refusal({{"bos_token", 5}}),
              HasSubstr("tokenizer_config.json: bos_token is 5; expected a text"));
}

TEST(TokenizerConfig, TokensOfOlderFilesMustBeKnown) {
  Directory model;
  model.write("special_tokens_map.json", {{"bos_token", "<s>"}, {"additional_special_tokens", {"</s>"}}});
  EXPECT_EQ(model.refusal(), "nothing");
  model.write("special_tokens_map.json", {{"pad_token", token("<pad>")}});
  EXPECT_THAT(model.refusal(),
              AllOf(HasSubstr("special_tokens_map.json: pad_token"), HasSubstr("\"<pad>\"")));
  model.config({{"pad_token", "<pad>"}});
  EXPECT_EQ(model.refusal(), "nothing");
  model.write("added_tokens.json", {{"<x>", 258}});
  EXPECT_THAT(model.refusal(), HasSubstr("added_tokens.json: [\"<x>\"]"));
  model.config({{"added_tokens_decoder", {{"258", token("<pad>")}}}});  // then the older files are not read
  EXPECT_EQ(model.refusal(), "nothing");
}

TEST(Tokenizer, ATokenBeyondTheModelsVocabularyIsAnErrorWhereItStands) {
  Directory model;
  model.config({{"pad_token", "<pad>"}});
  const auto tokenizer = load_tokenizer(model.path(), 258);
  EXPECT_EQ(tokenizer->encode("x</s>", false).size(), 2u);
  EXPECT_THAT(test::message_or_nothing<InputError>([&] { tokenizer->encode("x<pad>", false); }),
              HasSubstr("the token \"<pad>\" has the id 258, but the model's vocab_size is 258"));
  model.tokenizer()["post_processor"] = {
      {"type", "BertProcessing"}, {"cls", {"<s>", 256}}, {"sep", {"</s>", 257}}};
  model.write_tokenizer();
  EXPECT_THAT(test::message_or_nothing<InputError>([&] { load_tokenizer(model.path(), 257); }),
              HasSubstr("the token \"</s>\" has the id 257"));
}

TEST(Tokenizer, IdsBeyondTheModelsVocabularyAreAnErrorOnlyWhereATextUsesThem) {
  Directory model;
  const auto tokenizer = load_tokenizer(model.path(), 100);  // of 258
  EXPECT_EQ(tokenizer->encode("0", false).size(), 1u);
  EXPECT_THAT(test::message_or_nothing<InputError>([&] { tokenizer->encode("0</s>", false); }),
              HasSubstr("the token \"</s>\" has the id 257, but the model's vocab_size is 100"));
}

TEST(Tokenizer, StartAndEndAreNamedByTheFilesBesideIt) {
  Directory model;
  EXPECT_EQ(load_tokenizer(model.path())->bos_token(), std::nullopt);
  EXPECT_EQ(load_tokenizer(model.path())->end_token(), std::nullopt);
  model.config({{"bos_token", token("<s>")}, {"eos_token", "</s>"}});
  EXPECT_EQ(load_tokenizer(model.path())->bos_token(), (NamedToken{256, "<s>"}));
  EXPECT_EQ(load_tokenizer(model.path())->eos_token(), (NamedToken{257, "</s>"}));
  EXPECT_EQ(load_tokenizer(model.path())->end_token(), 257);
  EXPECT_EQ(load_tokenizer(model.path() + "/tokenizer.json")->end_token(), std::nullopt);
  model.config({{"eos_token", "<new>"}});
  EXPECT_EQ(load_tokenizer(model.path())->end_token(), 258);
  model.config({{"tokenizer_class", "GPT2Tokenizer"}});
  EXPECT_EQ(load_tokenizer(model.path())->eos_token(), (NamedToken{258, "<|endoftext|>"}));
  model.config({{"eos_token", nullptr}});
  model.write("special_tokens_map.json", {{"eos_token", "</s>"}});
  EXPECT_EQ(load_tokenizer(model.path())->end_token(), 257);
}

// ---- hash ---------------------------------------------------------------------------------------------

TEST(TokenizerHash, IsOfWhatDecidesTheIds) {
  Directory model;
  const std::string hash = tokenizer_hash(model.path());
  EXPECT_EQ(hash.size(), 64u);
  EXPECT_EQ(tokenizer_hash(model.path() + "/tokenizer.json"), hash);
  const auto with = [&](const Json& config) {
    model.config(config);
    return tokenizer_hash(model.path());
  };
  // What changes no id.
  EXPECT_EQ(with({{"bos_token", "<s>"}, {"model_max_length", 7}, {"chat_template", "{{ x }}"}}), hash);
  model.tokenizer()["truncation"] = {{"max_length", 5}};
  model.tokenizer()["padding"] = {{"pad_id", 3}};
  test::ScratchFolder other;
  other.write("tokenizer.json", model.tokenizer().dump(4));
  EXPECT_EQ(tokenizer_hash(other.path()), hash);
  // What does.
  EXPECT_NE(with({{"pad_token", "<pad>"}}), hash);
  EXPECT_NE(with({{"added_tokens_decoder", {{"257", token("</s>", {{"lstrip", true}})}}}}), hash);
  std::filesystem::remove(model.path() + "/tokenizer_config.json");
  EXPECT_EQ(tokenizer_hash(model.path()), hash);
  model.tokenizer()["pre_tokenizer"]["add_prefix_space"] = true;
  model.write_tokenizer();
  EXPECT_NE(tokenizer_hash(model.path()), hash);
}

}  // namespace
}  // namespace mezzo
