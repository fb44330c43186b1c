// Encoding and decoding against Hugging Face tokenizers (tests/goldens/make_tokenizer_vectors.py), and what
// is refused.
#include "mezzo/data/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <nlohmann/json.hpp>
#include <random>

#include "mezzo/core/error.h"
#include "mezzo/data/added_tokens.h"
#include "mezzo/data/pattern.h"
#include "mezzo/data/unicode.h"
#include "mezzo/io/files.h"
#include "mezzo/io/json_file.h"
#include "scratch.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;
using testing::AllOf;
using testing::HasSubstr;

const std::string fixtures = MEZZO_TEST_DATA "/tokenizers/";

Json fixture(const std::string& name) { return read_json_file(fixtures + name); }

/// The tokenizer of a document.
std::unique_ptr<Tokenizer> tokenizer_of(const Json& document) {
  const test::ScratchFolder directory;
  return load_tokenizer(directory.write("tokenizer.json", document.dump()));
}

/// A vocabulary of the 256 bytes and no merges: ids are bytes in the order of their characters.
Json small_document() {
  Json document = fixture("shuffled.json");
  document["model"]["merges"] = Json::array();
  return document;
}

/// What loading the document says is wrong.
std::string refusal_of(const Json& document) {
  return test::message_or_nothing<InputError>([&] { tokenizer_of(document); });
}

// ---- vectors ------------------------------------------------------------------------------------------

class Vectors : public testing::TestWithParam<const char*> {};

/// Whether the text has a character that is too new for the installed Oniguruma: the vectors were made with
/// Unicode 16 (docs/decisions/oniguruma.md).
bool is_too_new(std::string_view text) {
  const Pattern since_15("[\U00010D40\U00013460\U0002EBF0\U00031350]", "here");
  const Pattern unassigned(R"(\p{Cn})", "here");
  for (PatternSearch search(since_15, text); search.next();) {
    if (PatternSearch(unassigned, text.substr(search.begin(), search.end() - search.begin())).next()) {
      return true;
    }
  }
  return false;
}

TEST_P(Vectors, EncodeAndDecodeAsHuggingFaceDoes) {
  const auto tokenizer = load_tokenizer(fixtures + GetParam() + ".json");
  const Json texts = fixture("texts.json");
  const Json expected = fixture(std::string(GetParam()) + ".ids.json");
  ASSERT_EQ(texts.size(), expected["ids"].size());
  ASSERT_GT(texts.size(), 400u);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto text = texts[i].get<std::string>();
    const Ids ids = tokenizer->encode(text, false);
    EXPECT_EQ(tokenizer->decode(ids), expected["decoded"].value(std::to_string(i), text)) << "text " << i;
    if (is_too_new(text)) continue;
    EXPECT_EQ(ids, expected["ids"][i].get<Ids>()) << "text " << i << ": " << texts[i];
    if (i < expected["special"].size()) {
      EXPECT_EQ(tokenizer->encode(text, true), expected["special"][i].get<Ids>()) << "text " << i;
    }
  }
}

TEST_P(Vectors, StartTokenIsWhatTheEmptyTextStartsWith) {
  const auto tokenizer = load_tokenizer(fixtures + GetParam() + ".json");
  const Ids around = tokenizer->encode("", true);
  EXPECT_EQ(tokenizer->start_token(), around.empty() ? std::nullopt : std::optional(around.front()));
}

INSTANTIATE_TEST_SUITE_P(Tokenizer, Vectors,
                         testing::Values("gpt2", "llama3", "qwen2", "o200k", "prefix_space", "added_tokens",
                                         "shuffled"),
                         [](const auto& suite) { return std::string(suite.param); });

TEST(Tokenizer, BothFormsOfMergesMeanTheSame) {
  Json document = fixture("gpt2.json");
  ASSERT_TRUE(document["model"]["merges"][0].is_array());
  for (Json& merge : document["model"]["merges"])
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  document["model"]["merges"].insert(document["model"]["merges"].begin(), "#version: 0.2");
  const auto strings = tokenizer_of(document);
  const auto pairs = load_tokenizer(fixtures + "gpt2.json");
  for (const Json& text : fixture("texts.json")) {
    EXPECT_EQ(strings->encode(text.get<std::string>(), true), pairs->encode(text.get<std::string>(), true));
  }
}

TEST(Tokenizer, EveryCharacterComesBack) {
  const auto tokenizer = load_tokenizer(fixtures + "llama3.json");
  std::string text;
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    append_utf8(text, c);
  }
  EXPECT_TRUE(tokenizer->decode(tokenizer->encode(text, false)) == text);
}

TEST(Tokenizer, IdsThatCutACharacterDecodeToItsBytes) {
  const auto tokenizer = tokenizer_of(small_document());
  const Ids ids = tokenizer->encode("\xE2\x82\xAC", false);
  ASSERT_EQ(ids.size(), 3u);
  EXPECT_EQ(tokenizer->decode(std::span(ids).first(2)), "\xE2\x82");
  EXPECT_EQ(tokenizer->decode(std::span(ids).last(1)), "\xAC");
}

TEST(Tokenizer, AnAddedTokenDecodesToItsOwnText) {
  // The characters of this one all stand for bytes in the byte-level alphabet, and not for their own.
  Json document = small_document();
  const auto id = static_cast<std::int32_t>(document["model"]["vocab"].size());
  document["added_tokens"] = {{{"id", id},
                               {"content", "\u00E9\u0120"},
                               {"single_word", false},
                               {"lstrip", false},
                               {"rstrip", false},
                               {"normalized", false},
                               {"special", true}}};
  const auto tokenizer = tokenizer_of(document);
  EXPECT_EQ(tokenizer->encode("\u00E9\u0120", false), Ids{id});
  EXPECT_EQ(tokenizer->decode(Ids{id}), "\u00E9\u0120");
}

// ---- broken input -------------------------------------------------------------------------------------

TEST(Tokenizer, RefusesBrokenUtf8WithItsOffset) {
  const auto tokenizer = tokenizer_of(small_document());
  const std::vector<std::pair<std::string, std::size_t>> cases = {
      {"\x80", 0},                    // a continuation
      {"abc\xFFz", 3},                // no byte of UTF-8
      {"abcdefghijklm\xC3", 13},      // cut short
      {"a\xC0\xAFz", 1},              // overlong, two bytes
      {"a\xE0\x9F\xBFz", 1},          // overlong, three bytes
      {"a\xF0\x8F\xBF\xBFz", 1},      // overlong, four bytes
      {"\xC3\xA9\xED\xA0\x80", 2},    // a surrogate
      {"\xF4\x90\x80\x80", 0},        // above U+10FFFF
      {"\xF5\x80\x80\x80", 0},        // far above
      {"ab\xE2\x82z", 2},             // cut short before another character
      {"ab\xF0\x9F\x98", 2},          // cut short at the end
      {std::string("\0\xF8", 2), 1},  // behind a NUL
      {"ok\xE2\x82\xAC\xE2\x28\xA1", 5},
  };
  for (const auto& [text, offset] : cases) {
    EXPECT_THAT(test::message_or_nothing<InputError>([&] { tokenizer->encode(text, false); }),
                HasSubstr(fmt::format("at byte {} (0x", offset)));
  }
  for (const char* text :
       {"\xED\x9F\xBF", "\xEE\x80\x80", "\xF4\x8F\xBF\xBF", "\xF0\x90\x80\x80", "\xE0\xA0\x80"}) {
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, false)), text);  // the last ones before each limit
  }
}

TEST(Tokenizer, RefusesIdsOutsideTheVocabulary) {
  Json document = small_document();
  document["model"]["vocab"] = {{"a", 0}, {"b", 5}};
  const auto tokenizer = tokenizer_of(document);
  EXPECT_EQ(tokenizer->decode(Ids{5, 0}), "ba");
  for (const std::int32_t id : {-1, 3, 6, 1 << 30}) {
    EXPECT_THAT(test::message_or_nothing<InputError>([&] {
                  tokenizer->decode(Ids{0, id});
                }),
                HasSubstr(fmt::format("the id {} is not", id)));
  }
}

TEST(Tokenizer, AByteWithoutATokenIsAnErrorOnlyWhereItStands) {
  Json document = small_document();
  document["model"]["vocab"].erase("z");
  const auto tokenizer = tokenizer_of(document);
  EXPECT_EQ(tokenizer->encode("xy", false).size(), 2u);
  EXPECT_THAT(test::message_or_nothing<InputError>([&] { tokenizer->encode("xyz", false); }),
              AllOf(HasSubstr("tokenizer.json: model.vocab"), HasSubstr("character \"z\" (U+007A)")));
}

// ---- what is refused ----------------------------------------------------------------------------------

TEST(Tokenizer, RefusesByNameWhatIsNotServed) {
  const auto with = [](const char* pointer, const Json& value) {
    Json document = small_document();
    document[Json::json_pointer(pointer)] = value;
    return refusal_of(document);
  };
  EXPECT_EQ(with("/model/type", "BPE"), "nothing");
  const auto refuses = [&](const char* pointer, const Json& value, const char* field) {
    EXPECT_THAT(with(pointer, value), AllOf(HasSubstr("/tokenizer.json: "), HasSubstr(field)))
        << pointer << value;
  };
  refuses("/version", "2.0", "version is \"2.0\"");
  refuses("/normalizer", {{"type", "Nmt"}}, "normalizer is of the type \"Nmt\", which is not served");
  refuses("/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", "AAA"}},
          "has 2 bytes and no trie");
  refuses("/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", "CAAAAA"}},
          "precompiled_charsmap: the trie has 8 bytes; expected a multiple of 4 up to 0");
  refuses("/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", "*"}}, "is not in base64 code");
  refuses("/normalizer", {{"type", "Strip"}, {"strip_left", true}}, "normalizer.strip_right is missing");
  refuses("/normalizer", {{"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", "x"}},
          "normalizer.pattern.String is \"\"");
  refuses("/model/type", "WordLevel", "model.type is \"WordLevel\"");
  refuses("/model/type", "Unigram", "model.vocab is an object");
  refuses("/model/type", "WordPiece", "model.unk_token is null");
  refuses("/model/byte_fallback", 1, "model.byte_fallback is 1");
  refuses("/model/dropout", 0.1, "model.dropout is 0.1");
  refuses("/model/ignore_merges", 1, "model.ignore_merges is 1");
  refuses("/model/vocab", Json::array(), "model.vocab is a list of 0");
  refuses("/model/vocab/a", "0", "model.vocab, token \"a\": the id is \"0\"");
  refuses("/model/vocab/a", -1, "model.vocab, token \"a\": the id is -1");
  refuses("/model/vocab/a", 1 << 24, "model.vocab, token \"a\": the id is 16777216");
  refuses("/model/vocab/aa", 7, "the id 7 stands at another token too");
  refuses("/model/merges", nullptr, "model.merges is null");
  refuses("/model/merges", {"a"}, "model.merges[0] is \"a\"");
  refuses("/model/merges", {"a b c"}, "model.merges[0] is \"a b c\"");
  refuses("/model/merges", Json::array({{"a", "b", "c"}}), "model.merges[0] is no merge");
  refuses("/model/merges", Json::array({{"a", "zz"}}), "model.merges[0] needs the token \"zz\"");
  refuses("/model/merges", Json::array({{"z", "q"}}), "model.merges[0] needs the token \"zq\"");
  refuses("/pre_tokenizer", {{"type", "UnicodeScripts"}}, "pre_tokenizer is of the type \"UnicodeScripts\"");
  refuses("/pre_tokenizer", {{"type", "Metaspace"}}, "pre_tokenizer.replacement is missing");
  refuses("/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "last"}},
          "pre_tokenizer.prepend_scheme is \"last\"");
  refuses(
      "/pre_tokenizer",
      {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "first"}, {"add_prefix_space", false}},
      "pre_tokenizer.add_prefix_space is false");
  refuses("/pre_tokenizer/add_prefix_space", nullptr, "pre_tokenizer.add_prefix_space is null");
  const Json byte_level = small_document()["pre_tokenizer"];
  const auto split = [&](const Json& pattern, const char* behavior) {
    return Json{
        {"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", false}}, byte_level}}};
  };
  EXPECT_EQ(with("/pre_tokenizer", split({{"Regex", "a"}}, "Isolated")), "nothing");
  refuses("/pre_tokenizer", split({{"Regex", "a"}}, "isolated"), "pretokenizers[0].behavior is \"isolated\"");
  refuses("/pre_tokenizer", split({{"Glob", "a"}}, "Isolated"), "pretokenizers[0].pattern is an object");
  refuses("/pre_tokenizer", split({{"Regex", "a(b"}}, "Isolated"),
          "pretokenizers[0].pattern.Regex: the pattern does not compile: end pattern with unmatched");
  refuses("/pre_tokenizer", split({{"String", ""}}, "Isolated"), "pattern.String is \"\"");
  Json many = split({{"Regex", "a"}}, "Isolated");
  many["pretokenizers"].insert(many["pretokenizers"].begin(), 63, many["pretokenizers"][0]);
  refuses("/pre_tokenizer", many, "pre_tokenizer has 65 steps");
  refuses("/decoder", nullptr, "decoder is null");
  refuses("/decoder", {{"type", "CTC"}}, "decoder is of the type \"CTC\"");
  refuses("/decoder", {{"type", "Metaspace"}}, "decoder.replacement is missing");
  refuses("/decoder", {{"type", "Strip"}, {"content", " "}, {"start", -1}, {"stop", 0}},
          "decoder.start is -1");
  refuses("/post_processor", {{"type", "Truncation"}}, "post_processor is of the type \"Truncation\"");
  refuses("/post_processor", {{"type", "RobertaProcessing"}}, "post_processor.cls is missing");
  refuses("/post_processor", {{"type", "BertProcessing"}, {"cls", {"a", 0}}, {"sep", {"x", 99999}}},
          "post_processor.sep[1] is 99999");
  refuses("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Nmt"}}}}},
          "normalizer.normalizers[0] is of the type \"Nmt\"");
  const auto processing = [](const Json& single) {
    const Json bos = {{"id", "x"}, {"ids", {3}}, {"tokens", {"x"}}};
    const Json far = {{"id", "y"}, {"ids", {99999}}, {"tokens", {"y"}}};
    return Json{
        {"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", {{"x", bos}, {"y", far}}}};
  };
  const auto special = [](const char* id) { return Json{{"SpecialToken", {{"id", id}, {"type_id", 0}}}}; };
  const auto sequence = [](const char* id) { return Json{{"Sequence", {{"id", id}, {"type_id", 0}}}}; };
  EXPECT_EQ(with("/post_processor", processing(Json::array({special("x"), sequence("A")}))), "nothing");
  refuses("/post_processor", processing(Json::array({special("x")})), "post_processor.single is a list of 1");
  refuses("/post_processor", processing(Json::array({sequence("B")})),
          "post_processor.single[0].Sequence.id is \"B\"");
  refuses("/post_processor", processing(Json::array({sequence("A"), sequence("A")})),
          "post_processor.single[1].Sequence.id");
  refuses("/post_processor", processing(Json::array({special("z"), sequence("A")})),
          "single[0].SpecialToken.id is \"z\"");
  refuses("/post_processor", processing(Json::array({special("y"), sequence("A")})),
          "special_tokens.y.ids[0] is 99999");
  const Json one_template = processing(Json::array({sequence("A")}));
  refuses("/post_processor", {{"type", "Sequence"}, {"processors", {one_template, one_template}}},
          "post_processor.processors[1]");
}

TEST(Tokenizer, RefusesAddedTokensThatHuggingFaceWouldReadInAnotherWay) {
  const Json base = small_document();
  const auto count = static_cast<std::int32_t>(base["model"]["vocab"].size());
  const auto token = [](std::int32_t id, const std::string& content) {
    return Json{{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  };
  const auto with = [&](const Json& tokens) {
    Json document = base;
    document["added_tokens"] = tokens;
    return refusal_of(document);
  };
  EXPECT_EQ(with(Json::array({token(count, "<x>"), token(count + 1, "<y>")})), "nothing");
  EXPECT_THAT(with(Json::array({token(count + 1, "<x>")})),
              HasSubstr("added_tokens[0].id is 517; expected 516"));
  EXPECT_THAT(with(Json::array({token(count, "<x>"), token(count, "<y>")})),
              HasSubstr("added_tokens[1].id is 516; expected 517"));
  EXPECT_THAT(with(Json::array({token(count, "a")})), HasSubstr("added_tokens[0].id is 516; expected"));
  EXPECT_THAT(with(Json::array({token(count, "<x>"), token(count, "<x>")})),
              HasSubstr("added_tokens[1].content"));
  EXPECT_THAT(with(Json::array({token(count, "")})), HasSubstr("added_tokens[0].content is \"\""));
  const auto shadowed = base["model"]["vocab"]["\u0120"].get<std::int32_t>();  // the token of the space
  EXPECT_THAT(with(Json::array({token(shadowed, "\u0120")})), HasSubstr("added_tokens[0].content"));
  Json unmarked = token(count, "<x>");
  unmarked.erase("lstrip");
  EXPECT_THAT(with(Json::array({unmarked})), HasSubstr("added_tokens[0].lstrip is missing"));
}

TEST(Tokenizer, AnUnknownTokenStandsForWhatHasNone) {
  Json document = small_document();
  document["model"]["vocab"].erase("z");
  const auto ids = [&](const char* text) { return tokenizer_of(document)->encode(text, false); };
  EXPECT_THROW(ids("zz"), InputError);
  document["model"]["unk_token"] = "<none>";  // which the vocabulary has not
  EXPECT_THROW(ids("zz"), InputError);
  document["model"]["unk_token"] = "a";
  EXPECT_EQ(ids("zz"), ids("aa"));
  document["model"]["fuse_unk"] = true;
  EXPECT_EQ(ids("zz"), ids("a"));
}

TEST(Tokenizer, BrokenJsonIsNamedWithItsPlace) {
  const test::ScratchFolder directory;
  EXPECT_THAT(test::message_or_nothing<InputError>(
                  [&] { load_tokenizer(directory.write("tokenizer.json", "{\n\"model\": {,}}")); }),
              HasSubstr("tokenizer.json:2:"));
  EXPECT_THAT(test::message_or_nothing<InputError>(
                  [&] { load_tokenizer(directory.write("tokenizer.json", "{\"model\":1,\"model\":2}")); }),
              HasSubstr("tokenizer.json:1:"));
  EXPECT_THAT(
      test::message_or_nothing<InputError>([&] { load_tokenizer(directory.write("tokenizer.json", "[]")); }),
      HasSubstr("tokenizer.json is a list of 0; expected an object"));
}

TEST(Tokenizer, FindsTheFileInAModelsDirectory) {
  const test::ScratchFolder directory;
  EXPECT_THROW(load_tokenizer(directory.path()), Error);
  directory.write("tokenizer.model", "not read beside a tokenizer.json");
  directory.write("tokenizer.json", small_document().dump());
  EXPECT_EQ(load_tokenizer(directory.path())->encode("ab", true).size(), 2u);
}

// ---- hostile text -------------------------------------------------------------------------------------

TEST(AddedTokens, WalkOverARunOfWhiteSpaceOnce) {
  AddedToken newline;
  newline.content = "\n";
  newline.lstrip = newline.rstrip = true;
  std::size_t count = 0;
  AddedTokens({newline}, Normalizer())
      .split(
          std::string(1 << 20, '\n'), PieceStart::text,
          [](std::string_view, PieceStart) { FAIL() << "nothing is left of the text"; },
          [&](std::int32_t) { ++count; });
  EXPECT_EQ(count, std::size_t{1} << 20);
}

TEST(AddedTokens, AWordCharacterIsWhatRustTakesForOne) {
  AddedToken mask;
  mask.id = 7;
  mask.content = "<mask>";
  mask.single_word = true;
  const AddedTokens tokens({mask}, Normalizer());
  const auto found_behind = [&](const std::string& before) {
    bool found = false;
    tokens.split(
        before + "<mask>", PieceStart::text, [](std::string_view, PieceStart) {},
        [&](std::int32_t) { found = true; });
    return found;
  };
  for (const char* other : {"-", " ", "\u00B2", "\u00BD", "\u2460"})
    EXPECT_TRUE(found_behind(other)) << other;
  for (const char* word : {"x", "_", "5", "\u0301", "\u200D", "\u2167", "\u24B6", "\u0663", "\u203F"}) {
    EXPECT_FALSE(found_behind(word)) << word;
  }
}

class HostileText : public testing::TestWithParam<const char*> {};

TEST_P(HostileText, ComesBackInBoundedTime) {
  // A quadratic step would take hours at these sizes (and the tests' own time limit is minutes).
  const auto tokenizer = load_tokenizer(fixtures + GetParam() + ".json");
  const auto repeated = [](std::string_view unit, std::size_t bytes) {
    std::string text;
    while (text.size() < bytes) text += unit;
    return text;
  };
  constexpr std::size_t mebibyte = 1 << 20;
  std::vector<std::string> texts = {repeated("a", mebibyte), repeated(" ", mebibyte),
                                    repeated(" ", mebibyte) + "x"};
  for (const char* unit : {"ab", "\u0301", "9", "漢", "😀", "\u200d", "\n", " \n", "\u00a0", "'", "'s",
                           "<mask>", "<", " <left>", "<right> ", "<both>  ", "<norm>", "    x"}) {
    texts.push_back(repeated(unit, mebibyte / 8));
  }
  for (const std::string& text : texts) {
    const Ids ids = tokenizer->encode(text, false);
    EXPECT_LE(ids.size(), text.size() + 1);
    if (GetParam() != std::string_view("added_tokens")) {
      EXPECT_TRUE(tokenizer->decode(ids) == text) << text.substr(0, 16);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizer, HostileText,
                         testing::Values("gpt2", "llama3", "qwen2", "added_tokens", "shuffled"),
                         [](const auto& suite) { return std::string(suite.param); });

}  // namespace
}  // namespace mezzo
