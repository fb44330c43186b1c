// Patterns: what they match, against Hugging Face tokenizers, and what is refused.
#include "mezzo/data/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"
#include "scratch.h"

namespace mezzo {
namespace {

using Pieces = std::vector<std::string>;
using testing::AllOf;
using testing::HasSubstr;

Pieces pieces_of(const PreTokenizer& pre_tokenizer, std::string_view text) {
  Pieces pieces;
  pre_tokenizer.split(text, PieceStart::text,
                      [&](std::string_view piece, PieceStart) { pieces.emplace_back(piece); });
  return pieces;
}

PreTokenizer splitting(Pattern pattern, Split::Behavior behavior = Split::Behavior::isolated,
                       bool invert = false) {
  std::vector<PreTokenizer::Step> steps;
  steps.emplace_back(Split{std::move(pattern), behavior, invert});
  return PreTokenizer(std::move(steps));
}

TEST(Pattern, SplitAsHuggingFaceDoes) {
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
    const PreTokenizer pre_tokenizer =
        splitting(entry["kind"] == "Regex" ? Pattern(source, "here") : Pattern::literal(source, "here"),
                  behaviors.at(entry["behavior"]), entry["invert"].get<bool>());
    for (std::size_t i = 0; i < vectors["texts"].size(); ++i) {
      EXPECT_EQ(pieces_of(pre_tokenizer, vectors["texts"][i].get<std::string>()),
                entry["pieces"][i].get<Pieces>())
          << entry["pattern"] << entry["behavior"] << entry["invert"] << vectors["texts"][i];
    }
  }
}

TEST(Pattern, MatchesAsHuggingFaceDoes) {
  const nlohmann::json vectors = read_json_file(MEZZO_TEST_DATA "/tokenizers/patterns.json");
  ASSERT_GE(vectors["cases"].size(), 40u);
  for (const auto& entry : vectors["cases"]) {
    const PreTokenizer pre_tokenizer = splitting(Pattern(entry["pattern"].get<std::string>(), "here"));
    for (std::size_t i = 0; i < vectors["texts"].size(); ++i) {
      EXPECT_EQ(pieces_of(pre_tokenizer, vectors["texts"][i].get<std::string>()),
                entry["pieces"][i].get<Pieces>())
          << entry["pattern"] << vectors["texts"][i];
    }
  }
}

TEST(Pattern, LongRunsTakeLinearTime) {
  const PreTokenizer pre_tokenizer =
      splitting(Pattern(R"(\s*[\r\n]+|\s+(?!\S)|\s+|(?:a|b)+|\p{M}+)", "here"));
  // Every step backwards through a run counts against the limit, which grows with the text; a second pass
  // over it for each character would exceed it.
  const std::string spaces(5'000'000, ' ');
  EXPECT_EQ(pieces_of(pre_tokenizer, spaces).size(), 1u);
  EXPECT_EQ(pieces_of(pre_tokenizer, spaces + "x").size(), 3u);
  EXPECT_EQ(pieces_of(pre_tokenizer, "\n" + spaces + "\n x").size(), 3u);
  std::string marks;
  for (int i = 0; i < 300'000; ++i) marks += "\u0301";
  EXPECT_EQ(pieces_of(pre_tokenizer, marks).size(), 1u);
  EXPECT_EQ(pieces_of(pre_tokenizer, std::string(100'000, 'a')).size(), 1u);
}

/// What is wrong with a pattern or a text that it cannot be matched in.
std::string refusal_of(std::string_view pattern, std::string_view text) {
  return test::message_or_nothing<InputError>([&] {
    const Pattern compiled(pattern, "FILE: FIELD");
    for (PatternSearch search(compiled, text); search.next();) continue;
  });
}

TEST(Pattern, APatternThatBacktracksWithoutEndIsStopped) {
  EXPECT_THAT(refusal_of("(?:a|aa)+(?:a|aa)+(?:a|aa)+[bc]", std::string(60, 'a')),
              AllOf(HasSubstr("FILE: FIELD: "), HasSubstr("of a text of 60 bytes: retry-limit-in-")));
}

TEST(Pattern, APatternThatKeepsTooManyPlacesIsStopped) {
  const std::string keeps_nine = "(?:(?:(?:(?:(?:(?:(?:(?:a|b)|c)|d)|e)|f)|g)|h)|i)+";
  EXPECT_EQ(refusal_of(keeps_nine, std::string(100'000, 'a')), "nothing");
  EXPECT_THAT(refusal_of(keeps_nine, std::string(500'000, 'a')), HasSubstr("match-stack limit over"));
}

TEST(Pattern, PropertiesAreTheLibrarys) {
  const auto matches = [](const char* pattern, const char* text) {
    return PatternSearch(Pattern(pattern, "here"), text).next();
  };
  EXPECT_FALSE(matches(R"(\s)", "\u180E"));  // no white space since Unicode 6.3
  EXPECT_TRUE(matches(R"(\s)", "\u0085"));
  EXPECT_FALSE(matches(R"(\w)", "\u200D"));
  EXPECT_TRUE(matches(R"(\w)", "\u00B2"));
  EXPECT_TRUE(matches(R"(\w)", "\u0301"));
  EXPECT_TRUE(matches(R"(\w)", "\u203F"));
  EXPECT_TRUE(matches(R"(\p{L})", "\U0001DF00"));  // Unicode 14
  EXPECT_TRUE(matches("(?i:'s)", "'\u017F"));
  // What the library's Unicode does not know is an unassigned character, never a letter of a wrong kind.
  for (const char* letter : {"\U00031350", "\U0002EBF0", "\U00013460"}) {  // Unicode 15, 15.1, 16
    EXPECT_NE(matches(R"(\p{Lo})", letter), matches(R"(\p{Cn})", letter));
  }
  EXPECT_THAT(pattern_library(), HasSubstr("Oniguruma 6."));
}

TEST(Pattern, RefusesWhatDoesNotCompile) {
  for (const auto& [pattern, why] : std::initializer_list<std::pair<const char*, const char*>>{
           {"(a", "end pattern with unmatched parenthesis"},
           {"a|(b|", "end pattern with unmatched parenthesis"},
           {"(?", "end pattern in group"},
           {"a)", "unmatched close parenthesis"},
           {"[a", "premature end of char-class"},
           {"\\", "end pattern at escape"},
           {"*a", "target of repeat operator is not specified"},
           {"[z-a]", "empty range in char class"},
           {R"(\p{Klingon})", "invalid character property name {Klingon}"},
           {R"(\xC3)", "too short multibyte code string"},
           {"(?<n>\\g<n>a)", "never ending recursion"},
           {"\xFF", "not valid UTF-8 at byte 0"}}) {
    EXPECT_THAT(refusal_of(pattern, ""), AllOf(HasSubstr("FILE: FIELD: the pattern "), HasSubstr(why)));
  }
  const auto nested = [](int depth) { return std::string(depth, '(') + "a" + std::string(depth, ')'); };
  EXPECT_EQ(refusal_of(nested(100), "a"), "nothing");
  EXPECT_THAT(refusal_of(nested(1000), "a"), HasSubstr("parse depth limit over"));
}

TEST(Pattern, NeverReadsBrokenUtf8) {
  for (const char* text : {"a\xF0", "\xE2\x82", "\x80", "\xED\xA0\x80"}) {
    EXPECT_THAT(refusal_of(".", text), HasSubstr("the text is not valid UTF-8 at byte")) << text;
    EXPECT_THAT(refusal_of("a", text), HasSubstr("the text is not valid UTF-8 at byte")) << text;
  }
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
