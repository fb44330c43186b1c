#include "mezzo/core/hub_cache.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

namespace fs = std::filesystem;

class HubCacheTest : public ::testing::Test {
 protected:
  /// A model as huggingface_hub stores it: files are links into blobs/.
  std::string add(const std::string& name, const std::string& commit) {
    const fs::path folder = fs::path(scratch_ / "hub") / name;
    fs::create_directories(folder / "blobs");
    fs::create_directories(folder / "snapshots" / commit);
    scratch_.write("hub/" + name + "/blobs/1234", "{}");
    fs::create_symlink("../../blobs/1234", folder / "snapshots" / commit / "config.json");
    return (folder / "snapshots" / commit).string();
  }
  void set_main(const std::string& name, const std::string& commit) {
    fs::create_directories(scratch_ / ("hub/" + name + "/refs"));
    scratch_.write("hub/" + name + "/refs/main", commit);
  }
  std::string find(const std::string& name) const { return HubCache(scratch_ / "hub").find(name); }
  std::string refusal(const std::string& name) const {
    return test::message_of<UsageError>([&] { find(name); });
  }

  test::ScratchFolder scratch_;
};

TEST_F(HubCacheTest, AnIdIsTheSnapshotOfMain) {
  add("models--org--tiny", "aaaa");
  const std::string snapshot = add("models--org--tiny", "bbbb");
  set_main("models--org--tiny", "bbbb\n");
  EXPECT_EQ(find("org/tiny"), snapshot);
  EXPECT_TRUE(fs::exists(find("org/tiny") + "/config.json"));
  EXPECT_EQ(find(scratch_ / "hub/models--org--tiny"), snapshot);
  EXPECT_EQ(find(scratch_ / "hub/models--org--tiny/"), snapshot);
  EXPECT_EQ(find(snapshot), snapshot);
}

TEST_F(HubCacheTest, WithoutMainTheOnlySnapshot) {
  const std::string snapshot = add("models--gpt2", "aaaa");
  EXPECT_EQ(find("gpt2"), snapshot);
  add("models--gpt2", "bbbb");
  EXPECT_NE(refusal("gpt2").find("2 snapshots and without refs/main"), std::string::npos) << refusal("gpt2");
  EXPECT_NE(refusal("gpt2").find("aaaa, bbbb"), std::string::npos) << refusal("gpt2");
}

TEST_F(HubCacheTest, ADownloadThatWasCutOffIsNoModel) {
  add("models--org--tiny", "aaaa");
  set_main("models--org--tiny", "cccc");
  EXPECT_NE(refusal("org/tiny").find("the commit cccc, which is not in snapshots/"), std::string::npos);
  fs::create_directories(scratch_ / "hub/models--org--none/snapshots");
  EXPECT_NE(refusal("org/none").find("without a snapshot"), std::string::npos);
}

TEST_F(HubCacheTest, AnUnknownIdSaysHowToFetchIt) {
  const std::string message = refusal("org/absent");
  EXPECT_NE(message.find("`hf download org/absent`"), std::string::npos) << message;
  EXPECT_NE(message.find(scratch_ / "hub"), std::string::npos) << message;
  const std::string homeless = test::message_of<UsageError>([] { HubCache("").find("org/absent"); });
  EXPECT_NE(homeless.find("neither HF_HOME nor HOME"), std::string::npos) << homeless;
}

TEST_F(HubCacheTest, WhatIsNoIdIsAPath) {
  for (const char* name : {"/absent/model", "a/b/c", "a b", "./a", "../a", "~/a", "org/", "/"}) {
    EXPECT_TRUE(fs::path(find(name)).is_absolute()) << name;
  }
}

TEST_F(HubCacheTest, AFolderThatIsThereComesFirst) {
  add("models--org--tiny", "aaaa");
  fs::create_directories(scratch_ / "org/tiny");
  const fs::path before = fs::current_path();
  fs::current_path(scratch_.path());
  EXPECT_EQ(find("org/tiny"), fs::canonical(scratch_ / "org/tiny").string());
  fs::current_path(before);
}

TEST(HubCache, IsWhereTheEnvironmentSays) {
  const auto folder_with = [](const std::vector<std::pair<const char*, const char*>>& variables) {
    for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"})
      unsetenv(name);
    for (const auto& [name, value] : variables) setenv(name, value, 1);
    return HubCache::of_environment().folder();
  };
  EXPECT_EQ(folder_with({}), "");
  EXPECT_EQ(folder_with({{"HOME", "/h"}}), "/h/.cache/huggingface/hub");
  EXPECT_EQ(folder_with({{"HOME", "/h"}, {"XDG_CACHE_HOME", "/x"}}), "/x/huggingface/hub");
  EXPECT_EQ(folder_with({{"XDG_CACHE_HOME", "/x"}, {"HF_HOME", "/f"}}), "/f/hub");
  EXPECT_EQ(folder_with({{"HF_HOME", "/f"}, {"HUGGINGFACE_HUB_CACHE", "/o"}}), "/o");
  EXPECT_EQ(folder_with({{"HF_HUB_CACHE", "/n"}, {"HUGGINGFACE_HUB_CACHE", "/o"}}), "/n");
  EXPECT_EQ(folder_with({{"HF_HUB_CACHE", ""}, {"HOME", "/h"}}), "/h/.cache/huggingface/hub");
}

}  // namespace
}  // namespace mezzo
