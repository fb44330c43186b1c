#include "mezzo/data/records.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

std::vector<std::string> records_of(const std::string& path) {
  std::vector<std::string> records;
  read_records(path, [&](const nlohmann::json& record, const std::string& where) {
    records.push_back(where.substr(path.size()) + record.dump());
  });
  return records;
}

TEST(Records, OneALine) {
  const test::ScratchFolder folder;
  const std::string path = folder.write("a.jsonl", "{\"a\": 1}\r\n{\"b\": [2]}");
  EXPECT_THAT(records_of(path), testing::ElementsAre(R"(:1{"a":1})", R"(:2{"b":[2]})"));
}

TEST(Records, ErrorsNameFileAndLine) {
  const test::ScratchFolder folder;
  const auto message = [&](std::string_view text) {
    const std::string path = folder.write("a.jsonl", text);
    return test::message_of<InputError>([&] { records_of(path); });
  };
  EXPECT_THAT(message("{}\n[1]\n"), testing::HasSubstr("a.jsonl:2: found array, expected a JSON object"));
  EXPECT_THAT(message("{\"sentence\": \"x\", \"label\": 1"), testing::HasSubstr("a.jsonl:1"));
  EXPECT_THAT(message("{}\n\n{}"), testing::HasSubstr("a.jsonl:2: the line is empty"));
  EXPECT_THAT(message(""), testing::HasSubstr("the file is empty"));
}

}  // namespace
}  // namespace mezzo
