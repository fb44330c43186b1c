#include "mezzo/cli/sweep_grid.h"

#include <gtest/gtest.h>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

using Texts = std::vector<std::string>;

/// The names of the runs.
Texts names_of(const Texts& overrides) {
  Texts names;
  for (const SweepMember& member : expand_grid(overrides).members) names.push_back(member.name);
  return names;
}

/// The values of one key, as they were cut.
Texts values_of(const std::string& values) {
  Texts cut;
  for (const SweepMember& member : expand_grid(Texts{"a.b=" + values}).members)
    cut.push_back(member.values.at(0).value);
  return cut;
}

std::string error_of(const Texts& overrides) {
  try {
    expand_grid(overrides);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "no error";
}

TEST(SweepGrid, EveryCombinationTheLastKeyFastest) {
  const Texts overrides = {"o.lr=1e-3,3e-3", "train.seed=7", "z.n=8, 16"};
  const SweepGrid grid = expand_grid(overrides);
  EXPECT_EQ(grid.fixed, Texts{"train.seed=7"});
  EXPECT_EQ(grid.keys, (Texts{"o.lr", "z.n"}));
  EXPECT_EQ(names_of(overrides), (Texts{"lr=1e-3,n=8", "lr=1e-3,n=16", "lr=3e-3,n=8", "lr=3e-3,n=16"}));
  EXPECT_EQ(grid.overrides_of(grid.members[1]), (Texts{"train.seed=7", "o.lr=1e-3", "z.n=16"}));
}

TEST(SweepGrid, NamesDoNotDependOnTheOrderOfKeys) {
  EXPECT_EQ(names_of({"z.n=8,16", "o.lr=1,2"}), (Texts{"lr=1,n=8", "lr=2,n=8", "lr=1,n=16", "lr=2,n=16"}));
  EXPECT_EQ(names_of({"a.n=1,2", "b.n=3,4"}),
            (Texts{"a.n=1,b.n=3", "a.n=1,b.n=4", "a.n=2,b.n=3", "a.n=2,b.n=4"}));
}

TEST(SweepGrid, CommasWithinAValueStay) {
  EXPECT_EQ(values_of("[1,2],[3]"), (Texts{"[1,2]", "[3]"}));
  EXPECT_EQ(values_of("[1, [2, 3]], 4"), (Texts{"[1, [2, 3]]", "4"}));
  EXPECT_EQ(values_of("{0: a, 1: b},{0: c, 1: d}"), (Texts{"{0: a, 1: b}", "{0: c, 1: d}"}));
  EXPECT_EQ(values_of(R"("a, b",'c, ''d',e)"), (Texts{R"("a, b")", "'c, ''d'", "e"}));
  EXPECT_EQ(values_of(R"(["a]", 'b,]'],"\",")"), (Texts{R"(["a]", 'b,]'])", R"("\",")"}));
  EXPECT_EQ(values_of("it's,that's"), (Texts{"it's", "that's"})) << "no quotes within a plain text";
  EXPECT_EQ(values_of("x],y"), (Texts{"x]", "y"}));
  EXPECT_EQ(expand_grid(Texts{"a.b=1,2", "m=[q_proj, v_proj]"}).fixed, Texts{"m=[q_proj, v_proj]"});
}

TEST(SweepGrid, NamesAreSafeAndTellValuesApart) {
  const Texts names = names_of({"p=a/../b,a_.._b,\"\"," + std::string(300, 'x')});
  EXPECT_TRUE(names[0].starts_with("p=a_.._b~")) << names[0];
  EXPECT_EQ(names[1], "p=a_.._b");
  EXPECT_TRUE(names[2].starts_with("p=__~")) << names[2];
  EXPECT_EQ(names[3].size(), 2 + 40 + 9u) << names[3];
  // Six long values fit no file's name; their hash tells them apart.
  Texts keys;
  const std::string text(50, 'y');
  for (int i = 0; i < 6; ++i) keys.push_back("key" + std::to_string(i) + "=" + text + "1," + text + "2");
  const Texts many = names_of(keys);
  EXPECT_EQ(many[0].size(), 200u);
  EXPECT_NE(many[0], many[1]);
}

TEST(SweepGrid, WhatIsNoGridIsSaid) {
  EXPECT_NE(error_of({"a=1", "b=[1,2]"}).find("several values"), std::string::npos);
  EXPECT_NE(error_of({"a=1,,2"}).find("either side"), std::string::npos);
  EXPECT_NE(error_of({"a=1,2,"}).find("either side"), std::string::npos);
  EXPECT_NE(error_of({"a=1,2,1"}).find("1 twice"), std::string::npos);
  EXPECT_NE(error_of({"a=[1,2"}).find("[ that is not closed"), std::string::npos);
  EXPECT_NE(error_of({"a='1,2"}).find("' that is not closed"), std::string::npos);
  EXPECT_NE(error_of({"a=1,2", "a=3,4"}).find("overridden twice"), std::string::npos);
  EXPECT_NE(error_of({"train.output_dir=a,b"}).find("folder of its own"), std::string::npos);
  std::string hundred = "0";
  for (int i = 1; i < 101; ++i) hundred += "," + std::to_string(i);
  EXPECT_NE(error_of({"a=" + hundred, "b=" + hundred}).find("more than 10000 runs"), std::string::npos);
}

}  // namespace
}  // namespace mezzo
