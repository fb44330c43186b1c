#include "mezzo/io/json_lines.h"

#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "file_size_limit.h"
#include "killed_child.h"
#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

using test::read_all;
using test::ScratchFolder;

auto up_to(int step) {
  return [step](const nlohmann::json& line) { return line.at("step") <= step; };
}

TEST(JsonLines, WritesWholeLinesInTheOrderOfKeys) {
  const ScratchFolder folder;
  {
    JsonLinesWriter writer(folder / "m");
    writer.append({{"step", 1}, {"loss", 0.5}, {"a", "x\ny\xff"}});
    EXPECT_EQ(read_all(folder / "m"), "{\"step\":1,\"loss\":0.5,\"a\":\"x\\ny\xef\xbf\xbd\"}\n");
  }
  JsonLinesWriter writer(folder / "m");
  EXPECT_EQ(writer.discarded_bytes(), 0u);
  writer.append({{"step", 2}, {"loss", std::numeric_limits<double>::infinity()}});
  writer.sync();
  EXPECT_EQ(read_all(folder / "m"),
            "{\"step\":1,\"loss\":0.5,\"a\":\"x\\ny\xef\xbf\xbd\"}\n{\"step\":2,\"loss\":null}\n");
}

TEST(JsonLines, WriterCutsATornLastLine) {
  const ScratchFolder folder;
  // Shorter and longer than the block in which the line feed is looked for.
  for (const std::size_t torn : {std::size_t{1}, std::size_t{4095}, std::size_t{4096}, std::size_t{10000}}) {
    for (const std::string whole : {"", "{}\n"}) {
      const std::string path = folder.write("m", whole + std::string(torn, 'x'));
      JsonLinesWriter writer(path);
      EXPECT_EQ(writer.discarded_bytes(), torn);
      writer.append({{"step", 1}});
      EXPECT_EQ(read_all(path), whole + "{\"step\":1}\n");
    }
  }
}

TEST(JsonLines, CutKeepsTheBytesOfOtherLines) {
  const ScratchFolder folder;
  const std::string path = folder.write("m", "{\"step\": 1 , \"loss\":1e-1}\n{\"step\":3}\n{\"step\":2}\n");
  const JsonLinesCut cut = truncate_json_lines(path, up_to(2));
  EXPECT_EQ(read_all(path), "{\"step\": 1 , \"loss\":1e-1}\n{\"step\":2}\n");
  EXPECT_EQ(cut.kept, 2u);
  EXPECT_EQ(cut.removed, 1u);
  EXPECT_EQ(cut.malformed, 0u);
}

TEST(JsonLines, ReadingShowsWholeObjectsAndChangesNothing) {
  const ScratchFolder folder;
  const std::string text = "{\"step\":1}\nno JSON\n[2]\n{\"step\": 3}\n{\"step\":4}";
  folder.write("m", text);
  std::vector<int> steps;
  const auto see = [&](const nlohmann::json& line) { steps.push_back(line.at("step").get<int>()); };
  read_json_lines(folder / "m", see);
  read_json_lines(folder / "none", see);
  EXPECT_EQ(steps, (std::vector<int>{1, 3}));  // the last line is torn, although it parses
  EXPECT_EQ(read_all(folder / "m"), text);
}

TEST(JsonLines, CutRemovesAndReportsWhatIsNoObject) {
  const ScratchFolder folder;
  const std::string good = "{\"step\":1}\n";
  for (const std::string& bad : {std::string("nonsense\n"), std::string("\n"), std::string(8, '\0') + "\n",
                                 std::string("17\n"), std::string("{\"step\":1\n")}) {
    const std::string path = folder.write("m", good + bad + good + "{\"step\":1}");  // the last one is torn
    const JsonLinesCut cut = truncate_json_lines(path, up_to(2));
    EXPECT_EQ(read_all(path), good + good);
    EXPECT_EQ(cut.kept, 2u);
    EXPECT_EQ(cut.malformed, 2u);
    EXPECT_EQ(cut.first_malformed, 2u);
  }
}

TEST(JsonLines, CutLeavesACleanFileAlone) {
  const ScratchFolder folder;
  const std::string path = folder.write("m", "{\"step\":1}\n");
  const auto before = std::filesystem::last_write_time(path);
  std::filesystem::last_write_time(path, before - std::chrono::hours(1));
  truncate_json_lines(path, up_to(1));
  EXPECT_EQ(std::filesystem::last_write_time(path), before - std::chrono::hours(1));
  EXPECT_EQ(truncate_json_lines(folder / "none", up_to(1)).kept, 0u);
  EXPECT_FALSE(file_exists(folder / "none"));
  EXPECT_EQ(truncate_json_lines(folder.write("empty", ""), up_to(1)).kept, 0u);
}

TEST(JsonLines, FullDiskIsAnError) {
  const ScratchFolder folder;
  JsonLinesWriter writer(folder / "m");
  const test::FileSizeLimit limit(10);
  EXPECT_THROW(writer.append({{"text", "more than ten bytes"}}), IoError);
}

TEST(JsonLines, KilledWriterLosesAtMostTheLineInTheMaking) {
  const ScratchFolder folder;
  const std::string path = folder / "m";
  std::mt19937 random(2);
  test::SharedCounter written;
  for (int round = 0; round < 20; ++round) {
    const std::uint64_t first = written.get();
    ASSERT_TRUE(test::run_and_kill(std::chrono::microseconds(random() % 2000), [&] {
      JsonLinesWriter writer(path);
      for (std::uint64_t step = first;; ++step) {
        writer.append({{"step", step}});
        written.set(step + 1);
      }
    }));
    const JsonLinesCut cut = truncate_json_lines(path, [](const nlohmann::json&) { return true; });
    EXPECT_EQ(cut.removed, 0u);
    EXPECT_GE(cut.kept, written.get());
    EXPECT_LE(cut.kept, written.get() + 1);
    EXPECT_LE(cut.malformed, 1u);
    written.set(cut.kept);
  }
}

}  // namespace
}  // namespace mezzo
