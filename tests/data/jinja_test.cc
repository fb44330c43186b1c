#include "mezzo/data/jinja.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

using Json = nlohmann::ordered_json;

/// The text, or nothing and the error's message in `error`.
std::optional<std::string> rendered(const std::string& source, const Json& variables,
                                    std::string* error = nullptr) {
  try {
    return JinjaTemplate(source, "t").render(variables).text;
  } catch (const InputError& problem) {
    if (error != nullptr) *error = problem.what();
    return std::nullopt;
  }
}

std::string error_of(const std::string& source, const Json& variables = Json::object()) {
  std::string error = "no error";
  rendered(source, variables, &error);
  return error;
}

/// tests/goldens/make_jinja_vectors.py
TEST(Jinja, RendersAsTransformersDoes) {
  std::ifstream file(MEZZO_TEST_DATA "/chat/jinja.json");
  const Json document = Json::parse(file);
  // Refused by name here, each for what docs/chat.md says.
  const std::set<std::string> refused = {"{{ 1e3 }}", "{{ 1_000 }}", "{{ range(2, 8) }}"};
  int compared = 0;
  for (const Json& vector : document["vectors"]) {
    const auto source = vector[0].get<std::string>();
    std::string error;
    const std::optional<std::string> found = rendered(source, document["variables"], &error);
    if (refused.contains(source)) {
      EXPECT_NE(error.find("is not served"), std::string::npos) << source << ": " << error;
      continue;
    }
    const std::optional<std::string> expected =
        vector[1].is_null() ? std::nullopt : std::optional(vector[1].get<std::string>());
    EXPECT_EQ(found, expected) << source << ": " << error;
    ++compared;
  }
  EXPECT_GT(compared, 500);
}

TEST(Jinja, RefusesByNameWithTheLine) {
  for (const auto& [source, expected] : std::initializer_list<std::pair<const char*, const char*>>{
           {"\n{{ a|sum }}", "t, line 2: the filter sum is not served"},
           {"{% if f %}{{ a|escape }}{% endif %}", "the filter escape is not served"},
           {"{{ a is escaped }}", "the test escaped is not served"},
           {"{% include 'x' %}", "the statement include is not served"},
           {"{% call m() %}{% endcall %}", "the statement call is not served"},
           {"{% raw %}{% endraw %}", "the statement raw is not served"},
           {"{% for a in b recursive %}{% endfor %}", "a recursive for is not served"},
           {"{% for a in [1] %}{{ loop.cycle(1, 2) }}{% endfor %}", "loop.cycle is not served"},
           {"{{ 2 ** 3 }}", "the operator ** is not served"},
           {"{{ m(*a) }}", "arguments by * or ** are not served"},
           {"{{ 'a'.zfill(3) }}", "the method zfill of a text is not served"},
           {"{{ [1].append(2) }}", "the method append of a list is not served"},
           {"{{ 'é'|upper }}", "upper of a text beyond ASCII is not served"},
           {"{{ '%s' % 1 }}", "% of a text is not served"},
           {"{{ ''.__class__ }}", "the attribute __class__ is not served"},
           {"{{ strftime_now('%Y') }}", "strftime_now"},
           {"{{ ('a'|safe) ~ 'b' }}", "the filter safe is served"},
           {"{% set a = 'a'|safe %}", "the filter safe is served"},
           {"{{ 'a' ~ 'b'|safe }}", "the filter safe is served"},
           {"a\n\n{{ raise_exception('no ' ~ 'tools') }}",
            "t, line 3: the template refuses the conversation: no tools"},
           {"\n{% if a %}\n\n", "line 2: the block has no end, endif"},
           {"{{ a.b }}", "a is undefined"},
       }) {
    EXPECT_NE(error_of(source).find(expected), std::string::npos) << source << ": " << error_of(source);
  }
  EXPECT_EQ(rendered("{{ strftime_now is defined }}", Json::object()), "False");
}

TEST(Jinja, HostileTemplatesEnd) {
  const std::string loop = "{% for a in range(100000) %}";
  const std::string end = "{% endfor %}";
  EXPECT_NE(error_of(loop + loop + end + end).find("steps"), std::string::npos);
  EXPECT_NE(error_of("{{ 'abcdefgh' * 1000000000000 }}").find("bytes"), std::string::npos);
  EXPECT_NE(
      error_of("{% set n = namespace(a='x') %}" + loop + "{% set n.a = n.a ~ n.a %}" + end).find("more than"),
      std::string::npos);
  EXPECT_NE(
      error_of("{% set n = namespace(a=[1]) %}" + loop + "{% set n.a = n.a + n.a %}" + end).find("steps"),
      std::string::npos);
  EXPECT_NE(error_of("{% set n = namespace(a=[]) %}{% for i in range(5000) %}{% set n.a = [n.a, n.a] %}" +
                     end + "{{ n.a }}")
                .find("t, line 1"),
            std::string::npos);
  EXPECT_NE(error_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").find("200 calls deep"),
            std::string::npos);
  EXPECT_NE(error_of("{{ range(1000000)|list }}").find("100000"), std::string::npos);
  const auto repeated = [](const std::string& piece, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += piece;
    return text;
  };
  for (const char* piece : {"(", "[", "-", "not ", "{'a':", "a[", "a if a else "}) {
    EXPECT_NE(error_of("{{ " + repeated(piece, 20000)).find("t, line 1"), std::string::npos) << piece;
  }
  EXPECT_NE(error_of("{{ a" + repeated("|trim", 20000) + " }}").find("operators"), std::string::npos);
  EXPECT_NE(error_of(repeated("{% if a %}", 20000)).find("nested"), std::string::npos);
  EXPECT_NE(error_of("{{ '" + std::string("\xff") + "' }}").find("UTF-8"), std::string::npos);
}

TEST(Jinja, SaysWhatGenerationsEnclose) {
  const JinjaTemplate source(
      "{% for m in messages %}{% if m.role == 'assistant' %}<a>{% generation %}{{ m.content }}<e>"
      "{% endgeneration %}\n\n{% else %}<u>{{ m.content }}\n{% endif %}{% endfor %}",
      "t");
  EXPECT_TRUE(source.has_generation());
  const auto found = source.render(Json::parse(
      R"({"messages": [{"role": "user", "content": "é"}, {"role": "assistant", "content": "ü"},
                       {"role": "user", "content": ""}, {"role": "assistant", "content": ""}]})"));
  EXPECT_EQ(found.text, "<u>é\n<a>ü<e>\n<u>\n<a><e>\n");
  EXPECT_EQ(found.generations, (std::vector<TextSpan>{{9, 14}, {22, 25}}));
  EXPECT_FALSE(JinjaTemplate("{{ a }}", "t").has_generation());
  EXPECT_NE(error_of("{% set a %}{% generation %}{% endgeneration %}{% endset %}").find("is not served"),
            std::string::npos);
}

}  // namespace
}  // namespace mezzo
