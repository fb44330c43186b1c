// Places, types and ranges: every error names the file, the place in it, what was found and expected.
#include "mezzo/io/json_cursor.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

using nlohmann::json;
using test::message_of;

const std::string file = "/m/f.json";
const json document = {{"a", {{"b", {1, "two", {{"c d", 3}}}}, {"type", "X"}}},
                       {"n", nullptr},
                       {"t", "text"},
                       {"yes", true},
                       {"half", 0.5},
                       {"minus", -2},
                       {"big", 18446744073709551615u}};
const JsonCursor root(document, file);

template <typename Action>
std::string error(Action&& action) {
  return message_of<InputError>(action);
}

TEST(JsonCursor, NamesThePlaceOfEveryValue) {
  EXPECT_EQ(root.where(), "/m/f.json");
  EXPECT_EQ(root["a"]["b"].elements()[2]["c d"].where(), "/m/f.json: a.b[2][\"c d\"]");
  EXPECT_EQ(root["a"].members()[0].second.where(), "/m/f.json: a.b");
  EXPECT_EQ(root["x"].where(), "/m/f.json: x");
}

TEST(JsonCursor, MissingAndNullAreUnset) {
  EXPECT_TRUE(root["x"].missing() && root["x"].is_unset());
  EXPECT_TRUE(!root["n"].missing() && root["n"].is_unset());
  EXPECT_FALSE(root["t"].is_unset());
  EXPECT_TRUE(root["x"].value().is_null());
  EXPECT_EQ(root["x"].text_or("y"), "y");
  EXPECT_EQ(root["n"].integer_or(1, 2, 7), 7);
  EXPECT_TRUE(root["n"].boolean_or(true));
  EXPECT_EQ(root["n"].positive_or(0.25), 0.25);
  EXPECT_EQ(error([] { root["x"].text(); }), "/m/f.json: x is missing; expected a text");
  EXPECT_EQ(error([] { root["n"].text(); }), "/m/f.json: n is null; expected a text");
  EXPECT_EQ(error([] { root["x"]["y"]; }), "/m/f.json: x is missing; expected an object");
}

TEST(JsonCursor, TypesAreStrict) {
  EXPECT_EQ(root["t"].text(), "text");
  EXPECT_TRUE(root["yes"].boolean());
  EXPECT_EQ(root["half"].number(), 0.5);
  EXPECT_EQ(root["minus"].integer(-2, 0), -2);
  EXPECT_EQ(root["minus"].number(), -2.0);
  EXPECT_EQ(root["big"].unsigned_integer(), 18446744073709551615u);
  EXPECT_EQ(error([] { root["yes"].text(); }), "/m/f.json: yes is true; expected a text");
  EXPECT_EQ(error([] { root["t"].boolean(); }), "/m/f.json: t is \"text\"; expected true or false");
  EXPECT_EQ(error([] { root["t"].elements(); }), "/m/f.json: t is \"text\"; expected a list");
  EXPECT_EQ(error([] { root["a"]["b"]["c"]; }), "/m/f.json: a.b is a list of 3; expected an object");
  EXPECT_EQ(error([] { root["a"].number(); }), "/m/f.json: a is of the type \"X\"; expected a finite number");
  EXPECT_EQ(error([] { root["half"].integer(0, 9); }),
            "/m/f.json: half is 0.5; expected a whole number from 0 to 9");
  EXPECT_EQ(error([] { root["minus"].positive(); }),
            "/m/f.json: minus is -2; expected a finite number above 0");
  error([] { root["minus"].unsigned_integer(); });
  error([] { root["yes"].number(); });
}

TEST(JsonCursor, RangesAreExact) {
  constexpr std::int64_t max = std::numeric_limits<std::int64_t>::max();
  const json numbers = {0, 1, 9, 10, -1, 9223372036854775807, 9223372036854775808u, 18446744073709551615u};
  const std::vector<JsonCursor> at = JsonCursor(numbers, file).elements();
  EXPECT_EQ(at[1].integer(1, 9), 1);
  EXPECT_EQ(at[2].integer(1, 9), 9);
  EXPECT_EQ(at[5].integer(0, max), max);
  for (const std::size_t i : {0, 3, 4, 5, 6, 7}) error([&] { at[i].integer(1, 9); });
  for (const std::size_t i : {6, 7}) {
    error([&] { at[i].integer(-5, max); });
    error([&] { at[i].integer(-5, -1); });
  }
  EXPECT_EQ(at[4].integer(-1, -1), -1);
}

TEST(JsonCursor, KeysThatNobodyReadsAreNamed) {
  EXPECT_NO_THROW(root["a"].check_keys({"b", "type", "else"}));
  EXPECT_EQ(error([] {
              root["a"].check_keys({"b", "typ"});
            }),
            "/m/f.json: a: the key \"type\" is not known here; the nearest known one is typ");
  EXPECT_EQ(error([] {
              root["a"].check_keys({"b", "quite_another"});
            }),
            "/m/f.json: a: the key \"type\" is not known here; expected b, quite_another");
}

TEST(JsonCursor, WhatIsNotServedIsSaidSo) {
  EXPECT_EQ(error([] { root["a"].refuse("Y"); }),
            "/m/f.json: a is of the type \"X\", which is not served; expected Y");
}

}  // namespace
}  // namespace mezzo
