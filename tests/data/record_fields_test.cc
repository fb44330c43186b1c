// Records that lie within others, and fields that are computed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/data/computed_fields.h"
#include "mezzo/data/record_path.h"
#include "scratch.h"

namespace mezzo {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::vector<std::string> records_at(const std::string& path, const std::string& json) {
  std::vector<std::string> records;
  RecordPath(path).for_each(nlohmann::json::parse(json), "f.json",
                            [&](const nlohmann::json& record, const std::string& where) {
                              records.push_back(where + " " + record.dump());
                            });
  return records;
}

TEST(RecordPath, RecordsHaveTheFieldsThatTheyLieIn) {
  EXPECT_EQ(
      records_at("data[].qas[]", R"({"v": 1, "data": [{"t": "x", "qas": [{"q": 1}, {"q": 2, "t": "own"}]},
                                                             {"t": "y", "qas": [{"q": 3}]}]})"),
      (std::vector<std::string>{R"(f.json: data[0].qas[0] {"data":{"t":"x"},"q":1,"t":"x","v":1})",
                                R"(f.json: data[0].qas[1] {"data":{"t":"x"},"q":2,"t":"own","v":1})",
                                R"(f.json: data[1].qas[0] {"data":{"t":"y"},"q":3,"t":"y","v":1})"}));
  // The members of an object, and a list that is the whole.
  EXPECT_EQ(records_at("[].qas[]", R"({"a": {"p": 1, "qas": [{"q": 1}]}})"),
            std::vector<std::string>{R"(f.json: ["a"].qas[0] {"p":1,"q":1})"});
  EXPECT_EQ(records_at("[]", R"([{"q": 1}])"), std::vector<std::string>{R"(f.json: [0] {"q":1})"});
  // Objects without a list in between, whose fields stand under their name too.
  EXPECT_EQ(
      records_at("passage.q[].a[]", R"({"passage": {"text": "p", "q": [{"a": [{"text": "a"}]}]}})"),
      std::vector<std::string>{R"(f.json: passage.q[0].a[0] {"passage":{"text":"p"},"q":{},"text":"a"})"});
}

TEST(RecordPath, ErrorsSayWhere) {
  const auto error = [](const std::string& path, const std::string& json) {
    return test::message_or_nothing<Error>([&] { records_at(path, json); });
  };
  EXPECT_THAT(error("data[].qas[]", R"({"data": [{"qas": []}, {"x": 1}]})"),
              AllOf(HasSubstr("f.json: data[1]"), HasSubstr("\"qas\" is missing")));
  EXPECT_THAT(error("data[]", R"({"data": "x"})"), HasSubstr("f.json: data: found string, expected a list"));
  EXPECT_THAT(error("data[]", R"({"data": [1]})"),
              HasSubstr("f.json: data[0]: found number, expected an object"));
  for (const char* path : {"", ".", "a.", "a..b", "a[", "a[0]", "a.[]", "a[]b"})
    EXPECT_THAT(error(path, "{}"), HasSubstr("data.task.records: found")) << path;
}

nlohmann::json with_fields(const std::vector<ComputedField>& fields, const std::string& record) {
  nlohmann::json json = nlohmann::json::parse(record);
  ComputedFields(fields).add_to(json, "f:1");
  return json;
}

TEST(ComputedFields, AreTextsAndLists) {
  const std::vector<ComputedField> fields = {
      {"both", "{{ a | upper }}-{{ n + 1 }}"},
      {"options[]",
       "{% set all = namespace(list=[]) %}{% for x in words %}"
       "{% set all.list = all.list + [' ' ~ both ~ x] %}{% endfor %}{{ all.list | tojson }}"}};
  const nlohmann::json record = with_fields(fields, R"({"a": "x", "n": 2, "words": ["p", "é\""]})");
  EXPECT_EQ(record.at("both"), "X-3");
  EXPECT_EQ(record.at("options"), (nlohmann::json{" X-3p", " X-3é\""}));
  EXPECT_THAT(test::message_or_nothing<Error>([&] { with_fields(fields, R"({"a": "x"})"); }),
              AllOf(HasSubstr("f:1: data.task.fields.both, line 1"), HasSubstr("n")));
  EXPECT_THAT(test::message_or_nothing<Error>([] {
                with_fields({{"x", "{% if %}"}}, "{}");
              }),
              HasSubstr("data.task.fields.x, line 1"));
  EXPECT_THAT(test::message_or_nothing<Error>([] {
                with_fields({{"options[]", "{{ 1 }}"}}, "{}");
              }),
              HasSubstr("f:1: data.task.fields.options[]: the template made number, expected a list"));
}

}  // namespace
}  // namespace mezzo
