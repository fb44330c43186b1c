#include "mezzo/io/json_file.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

using test::message_of;
using test::ScratchFolder;

std::string error_of(std::string_view text, std::size_t first_line = 1) {
  return message_of<InputError>([&] { parse_json(text, "f.json", first_line); });
}

std::string nested(int levels) { return std::string(levels, '[') + std::string(levels, ']'); }

TEST(Json, BuildsWhatIsWritten) {
  const std::string_view text =
      R"({"a": [1, -2, 3.5, "x\u00e4\n", true, false, null, [], {}], "b": {"a": {"deep": [[0]]}}, "": 18446744073709551615})";
  EXPECT_EQ(parse_json(text, "f.json"), nlohmann::json::parse(text));  // the library's own builder
  for (const std::string_view scalar : {"1", "\"x\"", "null", "true", " -0.5 "})
    EXPECT_EQ(parse_json(scalar, "f.json"), nlohmann::json::parse(scalar));
}

TEST(Json, KeepsIntegersApart) {
  EXPECT_TRUE(parse_json("18446744073709551615", "f").is_number_unsigned());
  EXPECT_TRUE(parse_json("-1", "f").is_number_integer());
  EXPECT_TRUE(parse_json("18446744073709551616", "f").is_number_float());
}

TEST(Json, SyntaxErrorsNameLineAndColumn) {
  EXPECT_EQ(
      error_of("{\n  \"a\": 1,\n  \"b\" 2\n}"),
      "f.json:3:8: invalid JSON: syntax error while parsing object separator - unexpected number literal; "
      "expected ':'");
  EXPECT_EQ(error_of("[1, x]", 17),
            "f.json:17:5: invalid JSON: syntax error while parsing value - invalid literal");
  EXPECT_TRUE(error_of("").starts_with("f.json:1:1: invalid JSON: "));
  for (const std::string_view text :
       {"{", "[1,]", "{\"a\":1,}", "1 2", "{} x", "'a'", "[1] // comment", "NaN", "[01]", "[1e999]", "\"\t\"",
        "\"\xff\"", "\xff", "\"\\ud800\"", "[\"a\" \"b\"]"})
    EXPECT_TRUE(error_of(text).starts_with("f.json:1:")) << text;
}

TEST(Json, ANulDoesNotEndTheText) {
  EXPECT_EQ(error_of(std::string_view("{}\n\0 junk", 9)), "f.json:2:1: invalid JSON: a NUL byte");
  EXPECT_EQ(error_of(std::string_view("1\0", 2)), "f.json:1:2: invalid JSON: a NUL byte");
}

TEST(Json, ErrorsAreOneCleanLine) {
  const std::string message = error_of("[\"" + std::string(100'000, 'x') + "\n\x01");
  EXPECT_LT(message.size(), 300u);
  for (const char c : message) EXPECT_TRUE(c >= ' ' && c <= '~') << message;
}

TEST(Json, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_EQ(error_of("{\"a\": 1,\n \"a\": 1}"), "f.json:2:4: the key \"a\" stands twice in one object");
  EXPECT_EQ(error_of(R"({"x": [{"a": {}, "b": 1, "a": 2}]})"),
            "f.json:1:28: the key \"a\" stands twice in one object");
  EXPECT_EQ(error_of(R"({"a": 1, "\u0061": 1})"), "f.json:1:17: the key \"a\" stands twice in one object");
  EXPECT_NO_THROW(parse_json(R"([{"a": {"a": 1}}, {"a": 1}])", "f.json"));
}

TEST(Json, LimitsNesting) {
  EXPECT_NO_THROW(parse_json(nested(max_json_depth), "f.json"));
  EXPECT_EQ(error_of(nested(max_json_depth + 1)), "f.json:1:101: more than 100 levels of nesting");
  EXPECT_EQ(error_of(std::string(1'000'000, '[')), "f.json:1:101: more than 100 levels of nesting");
}

TEST(Json, ReadsFilesUpToALimit) {
  const ScratchFolder folder;
  const std::string path = folder.write("a.json", "{\"k\": [1]}");
  EXPECT_EQ(read_json_file(path, 10).at("k").at(0), 1);
  EXPECT_TRUE(message_of<InputError>([&] { read_json_file(path, 9); }).starts_with(path + ": "));
  EXPECT_TRUE(message_of<IoError>([&] { read_json_file(folder / "none"); }).starts_with(folder / "none"));
  folder.write("b.json", "{\"k\": }");
  EXPECT_TRUE(message_of<InputError>([&] {
                read_json_file(folder / "b.json");
              }).starts_with(folder / "b.json:1:7: invalid JSON: "));
}

TEST(Quote, MakesOneShortLine) {
  EXPECT_EQ(quote("model.norm.weight"), "\"model.norm.weight\"");
  EXPECT_EQ(quote("a\"b\n\x01\xff"), R"("a\"b\n\x01\xff")");
  EXPECT_EQ(quote(std::string(101, 'x')), "\"" + std::string(100, 'x') + "\"...");
  EXPECT_EQ(quote(std::string(100, 'x')), "\"" + std::string(100, 'x') + "\"");
}

}  // namespace
}  // namespace mezzo
