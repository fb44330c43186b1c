// Patterns: what they match, against Hugging Face tokenizers, and what is refused.
#include "mezzo/data/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "mezzo/core/error.h"
#include "mezzo/data/pattern_syntax.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

using Pieces = std::vector<std::string>;
using testing::AllOf;
using testing::HasSubstr;

Pieces pieces_of(const PreTokenizer& pre_tokenizer, std::string_view text) {
  Pieces pieces;
  pre_tokenizer.split(text, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

PreTokenizer splitting(Pattern pattern, Split::Behavior behavior = Split::Behavior::isolated,
                       bool invert = false) {
  std::vector<PreTokenizer::Step> steps;
  steps.emplace_back(Split{std::move(pattern), behavior, invert});
  return PreTokenizer(std::move(steps));
}

class Engines : public testing::TestWithParam<Pattern::Engine> {};

TEST_P(Engines, SplitAsHuggingFaceDoes) {
  const std::map<std::string, Split::Behavior> behaviors = {
      {"Isolated", Split::Behavior::isolated},
      {"Removed", Split::Behavior::removed},
      {"MergedWithPrevious", Split::Behavior::merged_with_previous},
      {"MergedWithNext", Split::Behavior::merged_with_next},
      {"Contiguous", Split::Behavior::contiguous}};
  const nlohmann::json vectors = read_json_file(MEZZO_TEST_DATA "/tokenizers/splits.json");
  ASSERT_GE(vectors["cases"].size(), 200u);
  for (const auto& entry : vectors["cases"]) {
    const auto source = entry["pattern"].get<std::string>();
    const PreTokenizer pre_tokenizer = splitting(
        entry["kind"] == "Regex" ? Pattern(source, "here", GetParam()) : Pattern::literal(source, "here"),
        behaviors.at(entry["behavior"]), entry["invert"].get<bool>());
    for (std::size_t i = 0; i < vectors["texts"].size(); ++i) {
      EXPECT_EQ(pieces_of(pre_tokenizer, vectors["texts"][i].get<std::string>()),
                entry["pieces"][i].get<Pieces>())
          << entry["pattern"] << entry["behavior"] << entry["invert"] << vectors["texts"][i];
    }
  }
}

TEST_P(Engines, LongRunsTakeLinearTime) {
  const PreTokenizer pre_tokenizer =
      splitting(Pattern(R"(\s*[\r\n]+|\s+(?!\S)|\s+|(?:a|b)+|\p{M}+)", "here", GetParam()));
  // Every step backwards through a run counts against the limit, which grows with the text; a second pass
  // over it for each character would exceed it.
  const std::string spaces(5'000'000, ' ');
  EXPECT_EQ(pieces_of(pre_tokenizer, spaces).size(), 1u);
  EXPECT_EQ(pieces_of(pre_tokenizer, spaces + "x").size(), 3u);
  EXPECT_EQ(pieces_of(pre_tokenizer, "\n" + spaces + "\n x").size(), 3u);
  std::string marks;
  for (int i = 0; i < 300'000; ++i) marks += "\u0301";
  EXPECT_EQ(pieces_of(pre_tokenizer, marks).size(), 1u);
  EXPECT_EQ(pieces_of(pre_tokenizer, std::string(100'000, 'a')).size(),
            1u);  // a group: the compiled code's stack ends
}

TEST_P(Engines, APatternThatBacktracksWithoutEndIsStopped) {
  const PreTokenizer pre_tokenizer =
      splitting(Pattern("(?:a|aa)+(?:a|aa)+(?:a|aa)+[bc]", "the place", GetParam()));
  try {
    pieces_of(pre_tokenizer, std::string(60, 'a'));
    FAIL() << "expected an error";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("the place: "), HasSubstr("of a text of 60 bytes")));
  }
}

INSTANTIATE_TEST_SUITE_P(Pattern, Engines,
                         testing::Values(Pattern::Engine::compiled, Pattern::Engine::interpreter),
                         [](const auto& suite) {
                           return suite.param == Pattern::Engine::compiled ? "Compiled" : "Interpreter";
                         });

TEST(Pattern, KnowsTheUnicodeOfHuggingFace) {
  const auto matches = [](const char* pattern, const char* text) {
    return PatternSearch(Pattern(pattern, "here"), text).next();
  };
  EXPECT_FALSE(matches(R"(\s)", "\u180E"));  // no white space since Unicode 6.3
  EXPECT_TRUE(matches(R"(\s)", "\u0085"));
  EXPECT_FALSE(matches(R"(\w)", "\u200D"));
  EXPECT_TRUE(matches(R"(\w)", "\u00B2"));
  EXPECT_TRUE(matches(R"(\w)", "\u0301"));
  EXPECT_TRUE(matches(R"(\w)", "\u203F"));
  EXPECT_TRUE(matches(R"(\p{L})", "\U00031350"));    // Unicode 15
  EXPECT_TRUE(matches(R"([\p{L}])", "\U0002EBF0"));  // 15.1
  EXPECT_TRUE(matches(R"(\p{N})", "\U00010D40"));    // 16
  EXPECT_FALSE(matches(R"(\P{L})", "\U00013460"));
  EXPECT_FALSE(matches(R"([^\s\p{L}\p{N}])", "\U00013460"));
  EXPECT_TRUE(matches("(?i:'s)", "'\u017F"));
}

TEST(Pattern, RefusesWhatTheTwoEnginesReadInDifferentWays) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"a^b", "the anchor (\"^\" at byte 1 of the pattern)"},
      {"a$", "the anchor"},
      {R"(\bword)", "the escape (\"\\\\b\" at byte 0"},
      {R"(\h)", "the escape"},
      {R"(\1)", "the escape"},
      {R"(\R)", "the escape"},
      {R"(\xC3)", "a byte that is not ASCII"},
      {R"(\x{110000})", "the escape"},
      {R"(\uD800)", "the escape"},
      {R"(\pL)", "the escape"},
      {R"(\p{Han})", "the character property"},
      {R"(\p{^L})", "the character property"},
      {R"(\p{L)", "the escape"},
      {"(?i)a", "the group"},
      {"(?<name>a)", "the group"},
      {"(*ACCEPT)", "the call"},
      {"[[:alpha:]]", "a class inside a class"},
      {"[a&&b]", "an intersection of classes"},
      {R"([\W])", "a negated set inside a class"},
      {R"([\d-a])", "a range from a set"},
      {"[z-a]", "a range that descends"},
      {"[]a]", "an empty character class"},
      {"a**", "a quantifier behind a quantifier"},
      {"a{2}?", "a lazy interval of one number"},
      {"a{3,2}", "an interval that descends"},
      {"a{65536}", "an interval above 65535"},
      {"*a", "a quantifier with nothing before it"},
      {"(?=a)*", "a repeated assertion"},
      {"(?>a)", "the group"},
      {"(?:a|b)*+", "a possessive group"},
      {"(?i:mass)", "letters that have a ligature"},
      {"(?i:FI)", "letters that have a ligature"},
      {"(?i:\u00E9)", "a character that is not ASCII"},
      {R"((?i:\p{Lu}))", "a caseless match of a character property"},
      {"a)", "a closing parenthesis"},
  };
  for (const auto& [pattern, what] : cases) {
    try {
      translate_pattern(pattern, "FILE: FIELD");
      ADD_FAILURE() << pattern << " was translated";
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(),
                  AllOf(HasSubstr("FILE: FIELD: "), HasSubstr(what), HasSubstr("is not served")));
    }
  }
  for (const char* pattern : {"(a", "[a", "[", "[^", "\\", "[\\", "(?", "(", "a|(b|"}) {
    EXPECT_THROW(translate_pattern(pattern, "here"), InputError) << pattern;
  }
  EXPECT_THROW(translate_pattern(std::string(200, '(') + std::string(200, ')'), "here"), InputError);
  EXPECT_THROW(translate_pattern("\xFF", "here"), InputError);
}

TEST(PreTokenizer, PutsASpaceBeforeEachPieceWithoutOne) {
  std::vector<PreTokenizer::Step> steps;
  steps.emplace_back(Split{Pattern::literal("-", "here"), Split::Behavior::removed, false});
  steps.emplace_back(PrefixSpace{});
  const PreTokenizer pre_tokenizer(std::move(steps));
  EXPECT_EQ(pieces_of(pre_tokenizer, "a- b-\tc"), (Pieces{" a", " b", " \tc"}));
  EXPECT_EQ(pieces_of(pre_tokenizer, "-"), Pieces{});
}

}  // namespace
}  // namespace mezzo
