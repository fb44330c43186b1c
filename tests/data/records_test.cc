#include "mezzo/data/records.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "compressed.h"
#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

using namespace std::string_literals;
using testing::ElementsAre;
using testing::HasSubstr;

/// Each record behind the place that it was said to stand at, without the file's name.
std::vector<std::string> records_of(const std::string& path, DataFormat format = DataFormat::automatic) {
  std::vector<std::string> records;
  read_records(path, format, [&](const nlohmann::json& record, const std::string& where) {
    EXPECT_EQ(where.substr(0, path.size()), path);
    records.push_back(where.substr(path.size()) + record.dump());
  });
  return records;
}

TEST(Records, JsonLines) {
  const test::ScratchFolder folder;
  EXPECT_THAT(records_of(folder.write("a.jsonl", "{\"a\": 1}\r\n{\"b\": [2]}")),
              ElementsAre(R"(:1{"a":1})", R"(:2{"b":[2]})"));
  // Content goes before the name, and blank lines at the end are none.
  EXPECT_THAT(records_of(folder.write("a.csv", "\xEF\xBB\xBF{\"a\": 1}\n{\"a\": 2}\n\n \t\r\n")),
              ElementsAre(R"(:1{"a":1})", R"(:2{"a":2})"));
  EXPECT_THAT(records_of(folder.write("a.txt", "{\"a\": 1}\n")), ElementsAre(R"(:1{"a":1})"));
  EXPECT_THAT(records_of(folder.write("a.jsonl", "{\"data\": [{}]}\n")), ElementsAre(R"(:1{"data":[{}]})"));
}

TEST(Records, JsonLists) {
  const test::ScratchFolder folder;
  const auto both = ElementsAre(R"(: record 1{"a":1})", R"(: record 2{"a":2})");
  EXPECT_THAT(records_of(folder.write("a.json", "[{\"a\": 1}, {\"a\": 2}]")), both);
  EXPECT_THAT(records_of(folder.write("a.jsonl", "\xEF\xBB\xBF [\n{\"a\": 1},\n{\"a\": 2}\n]\n")), both);
  EXPECT_THAT(
      records_of(folder.write("a.json", R"({"version": "1", "tags": [1], "data": [{"a": 1}, {"a": 2}]})")),
      both);
  EXPECT_THAT(records_of(folder.write("a.txt", "{\n\"data\": [{\"a\": 1}, {\"a\": 2}]}")), both);
  EXPECT_THAT(records_of(folder.write("a.jsonl", R"({"data": [{"a": 1}, {"a": 2}]})"), DataFormat::json),
              both);
}

TEST(Records, Tables) {
  const test::ScratchFolder folder;
  const auto rows = ElementsAre(R"(: row 1{"label":"1","text":"fine, \"so\"\nto say"})",
                                R"(: row 2{"label":"0","text":""})");
  const std::string comma = "text,label\r\n\"fine, \"\"so\"\"\nto say\",1\r\n,0\r\n";
  EXPECT_THAT(records_of(folder.write("a.csv", comma)), rows);
  EXPECT_THAT(records_of(folder.write("a.txt", comma)), rows);
  const std::string tabs = "text\tlabel\n\"fine, \"\"so\"\"\nto say\"\t1\n\t0";
  EXPECT_THAT(records_of(folder.write("a.tsv", tabs)), rows);
  EXPECT_THAT(records_of(folder.write("a", tabs)), rows);
  EXPECT_THAT(records_of(folder.write("a.csv", tabs), DataFormat::tsv), rows);
}

TEST(Records, CompressedInAnyOfThem) {
  const test::ScratchFolder folder;
  const auto both = ElementsAre(R"({"a":"1"})", R"({"a":"2"})");
  for (const auto& [name, text] : {std::pair("a.jsonl", "{\"a\": \"1\"}\n{\"a\": \"2\"}\n"),
                                   std::pair("a.json", R"([{"a": "1"}, {"a": "2"}])"),
                                   std::pair("a.csv", "a\n1\n2\n"), std::pair("a.tsv", "a\n1\n2\n")}) {
    for (const auto& [extension, bytes] :
         {std::pair(".gz", test::gzip(text)), std::pair(".zst", test::zstd(text))}) {
      std::vector<std::string> records = records_of(folder.write(std::string(name) + extension, bytes));
      for (std::string& record : records) record.erase(0, record.find('{'));
      EXPECT_THAT(records, both) << name << extension;
    }
  }
  const std::string path = folder.write("a.jsonl.gz", test::gzip("{\"a\": \"1\"}\n{\"a\""));
  EXPECT_THAT(test::message_of<InputError>([&] { records_of(path); }), HasSubstr("a.jsonl.gz:2:"));
}

TEST(Records, Parquet) {
  const std::string folder = MEZZO_TEST_DATA "/tables/";
  const std::string path = folder + "small.parquet";
  if (!MEZZO_HAS_ARROW) {
    const std::string message = test::message_of<InputError>([&] { records_of(path); });
    EXPECT_THAT(message,
                HasSubstr("small.parquet: this is a Parquet file, and this build of Mezzo is without Arrow"));
    EXPECT_THAT(message, HasSubstr("pandas.read_parquet"));
    return;
  }
  std::vector<nlohmann::json> expected;
  read_records(folder + "small.jsonl", DataFormat::jsonl,
               [&](const nlohmann::json& record, const std::string&) { expected.push_back(record); });
  ASSERT_EQ(expected.size(), 3u);
  std::size_t row = 0;
  for (const DataFormat format : {DataFormat::automatic, DataFormat::parquet}) {
    row = 0;
    read_records(path, format, [&](nlohmann::json record, const std::string& where) {
      EXPECT_EQ(where, fmt::format("{}: row {}", path, row + 1));
      EXPECT_STREQ(record["image"].type_name(), row == 2 ? "null" : "binary");  // no text stands for it
      record.erase("image");
      EXPECT_EQ(record, expected.at(row++));
    });
    EXPECT_EQ(row, 3u);
  }
  // What is torn or damaged is one line.
  const test::ScratchFolder scratch;
  const std::string bytes = test::read_all(path);
  for (const std::size_t size : {std::size_t{5}, bytes.size() / 2, bytes.size() - 1}) {
    const std::string torn = scratch.write("torn.parquet", bytes.substr(0, size));
    const std::string message = test::message_of<InputError>([&] { records_of(torn); });
    EXPECT_THAT(message, HasSubstr("torn.parquet: "));
    EXPECT_EQ(message.find('\n'), message.npos) << message;
  }
  for (std::size_t at = 8; at + 8 < bytes.size(); at += 7) {  // no crash, whatever is damaged
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x55);
    try {
      records_of(scratch.write("damaged.parquet", damaged));
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(), HasSubstr("damaged.parquet: "));
    }
  }
}

// ---- what is no such file -------------------------------------------------------------------------------

std::string tar_of(const std::string& name) {
  std::string header = name + std::string(512 - name.size(), '\0');
  return header.replace(257, 6, "ustar\0"s) + std::string(1024, '\0');
}

struct Bad {
  const char* test;
  const char* file;
  std::string bytes;
  DataFormat format;
  std::vector<std::string> parts;  // of the message
};

std::ostream& operator<<(std::ostream& out, const Bad& bad) { return out << bad.test; }

constexpr auto automatic = DataFormat::automatic;
constexpr auto jsonl = DataFormat::jsonl;
constexpr auto json = DataFormat::json;
constexpr auto csv = DataFormat::csv;
constexpr auto tsv = DataFormat::tsv;
constexpr auto parquet = DataFormat::parquet;
const std::string any = "expected JSON lines, JSON, CSV, TSV or Parquet";

class BadFile : public ::testing::TestWithParam<Bad> {};

TEST_P(BadFile, IsNamedInOneLine) {
  const Bad& bad = GetParam();
  const test::ScratchFolder folder;
  const std::string path = folder.write(bad.file, bad.bytes);
  const std::string message = test::message_of<InputError>([&] { records_of(path, bad.format); });
  EXPECT_EQ(message.find('\n'), message.npos) << message;
  EXPECT_EQ(message.substr(0, path.size()), path);
  for (const std::string& part : bad.parts) EXPECT_THAT(message, HasSubstr(part));
}

const std::string lines = "{\"a\": \"x\"}\n{\"a\": \"y\"}\n";
const std::string excel =
    "PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0"s + std::string(16, '\0') + "[Content_Types].xml";

INSTANTIATE_TEST_SUITE_P(
    Records, BadFile,
    ::testing::Values(
        Bad{"Empty", "a.jsonl", "", automatic, {"the file is empty", any}},
        Bad{"EmptyCsv", "a.csv", "", csv, {"the file is empty", "expected CSV (data.format: csv)"}},
        Bad{"EmptyParquet", "a.parquet", "", parquet, {"the file is empty", "expected Parquet"}},
        Bad{"EmptyWhenDecompressed", "a.jsonl.gz", test::gzip(""), automatic, {"the file is empty", any}},
        Bad{"BlankLinesAlone", "a.jsonl", "\n \r\n\n", automatic, {"the file holds blank lines alone", any}},
        Bad{"ABlankLine",
            "a.jsonl",
            "{}\n\n\n{}\n",
            automatic,
            {":2: the line is empty, expected a JSON object"}},
        Bad{"ALineThatIsAList",
            "a.jsonl",
            "{}\n[1]\n",
            automatic,
            {":2: found array, expected a JSON object"}},
        Bad{"AFirstLineThatIsAList",
            "a.jsonl",
            "[1, 2]\n[3, 4]\n",
            automatic,
            {":1: found array, expected a JSON object a line"}},
        Bad{"ATornLine", "a.jsonl", "{\"a\": \"x\"}\n{\"a\": \"", automatic, {"a.jsonl:2:", "invalid JSON"}},
        Bad{"AListForLines",
            "a.json",
            "[{\"a\": 1}]",
            jsonl,
            {"this is a JSON list", "expected JSON lines (data.format: jsonl)", "data.format: json"}},
        Bad{"ALongListForLines",
            "a.json",
            "[\n{\"a\": 1}\n]",
            jsonl,
            {"this is a JSON list", "data.format: json"}},
        Bad{"LinesForAList",
            "a.json",
            lines,
            json,
            {"this is JSON lines", "expected one JSON list", "data.format: jsonl"}},
        Bad{"LinesForCsv", "a.csv", lines, csv, {"this is JSON lines", "expected CSV", "data.format: jsonl"}},
        Bad{"LinesForParquet", "a.parquet", lines, parquet, {"the file begins with", "expected Parquet"}},
        Bad{"CsvForLines",
            "a.jsonl",
            "text,label\nfine,1\n",
            automatic,
            {"the first line is \"text,label\"", "JSON"}},
        Bad{"CsvForAList",
            "a.csv",
            "text,label\nfine,1\n",
            json,
            {"the first line is \"text,label\"", "expected one JSON list"}},
        Bad{"Prose",
            "a.txt",
            "Once upon a time\n",
            automatic,
            {"Once upon a time", "a header with commas or tabs"}},
        Bad{"NoRecordsInAnObject",
            "a.json",
            "{\"a\": [1], \"b\": 2}",
            automatic,
            {"an object without a list of objects", "expected a list of objects"}},
        Bad{"TwoListsInAnObject",
            "a.json",
            "{\"test\": [{}], \"train\": [{}]}",
            automatic,
            {"the lists \"test\", \"train\"", "an object with one such field"}},
        Bad{"OneConversation",
            "a.json",
            "{\"messages\": [{\"role\": \"user\"}]}",
            automatic,
            {"this is one conversation", "expected a list of objects"}},
        Bad{"AListOfTexts",
            "a.json",
            "[{}, \"x\"]",
            automatic,
            {": record 2: found string, expected an object"}},
        Bad{"AnEmptyList", "a.json", "[]", automatic, {"the list is empty"}},
        Bad{"Semicolons",
            "a.csv",
            "text;label\nfine;1\n",
            automatic,
            {"the header is one field, \"text;label\"", "expected commas between fields"}},
        Bad{"TabsInCsv",
            "a.csv",
            "text\tlabel\nfine\t1\n",
            automatic,
            {"expected commas between fields (data.format: tsv)"}},
        Bad{"CommasInTsv",
            "a.tsv",
            "text,label\nfine,1\n",
            automatic,
            {"expected tabs between fields (data.format: csv)"}},
        Bad{"AShortRow",
            "a.csv",
            "text,label\nfine,1\nbad\n",
            automatic,
            {": row 2 (line 3): found 1 fields, expected 2 as in the header"}},
        Bad{"AColumnTwice",
            "a.csv",
            "text,text\nfine,1\n",
            automatic,
            {":1: the header has the column \"text\" twice"}},
        Bad{"AHeaderAlone", "a.csv", "text,label\n", automatic, {"a header alone, expected rows"}},
        Bad{"Latin1", "a.csv", "text,label\ncaf\xe9,1\n", automatic, {"a.csv:2: field 1 is not UTF-8"}},
        Bad{"Parquet",
            "a.jsonl",
            "PAR1\x15\0\x15\0"s,
            jsonl,
            {"this is a Parquet file", "expected JSON lines", "data.format: parquet"}},
        Bad{"ParquetInGzip",
            "a.parquet.gz",
            test::gzip("PAR1\x15\0\x15\0"s),
            automatic,
            {"this is a gzip file that holds a Parquet file", "decompress it first"}},
        Bad{"GzipForParquet",
            "a.parquet",
            test::gzip(lines),
            parquet,
            {"this is a gzip file", "expected Parquet"}},
        Bad{"TornGzip",
            "a.jsonl.gz",
            test::gzip(lines).substr(0, 20),
            automatic,
            {"the gzip data end too early: the file is torn"}},
        Bad{"TarInGzip",
            "a.tar.gz",
            test::gzip(tar_of("a")),
            automatic,
            {"a gzip file that holds a tar archive"}},
        Bad{"Tar", "a.tar", tar_of("train.jsonl"), automatic, {"this is a tar archive", any}},
        Bad{"Zip", "a.zip", "PK\x03\x04\x14\0\0\0"s, automatic, {"this is a ZIP archive", any}},
        Bad{"Excel", "a.xlsx", excel, automatic, {"this is an Excel workbook", any, "save it as CSV"}},
        Bad{"OldExcel",
            "a.csv",
            "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0"s,
            csv,
            {"this is an old Excel workbook", "expected CSV"}},
        Bad{"Xz", "a.xz", "\xfd\x37zXZ\0\0\4"s, automatic, {"this is an xz file", "decompress it first"}},
        Bad{"Bzip2",
            "a.bz2",
            "BZh91AY&SY\x99\0"s,
            automatic,
            {"this is a bzip2 file", "decompress it first"}},
        Bad{"Safetensors",
            "a.jsonl",
            "\x40\0\0\0\0\0\0\0{\"a\":"s,
            automatic,
            {"this is a safetensors file", any}},
        Bad{"Arrow",
            "a.arrow",
            "ARROW1\0\0"s,
            automatic,
            {"this is an Arrow IPC (Feather) file", any, "save it as Parquet"}},
        Bad{"ArrowStream",
            "a.arrow",
            "\xff\xff\xff\xff\x10\0"s,
            automatic,
            {"this is an Arrow IPC stream", any}},
        Bad{"Hdf5", "a.h5", "\x89HDF\r\n\x1a\n\0"s, automatic, {"this is an HDF5 file", any}},
        Bad{"Numpy", "a.npy", "\x93NUMPY\1\0"s, automatic, {"this is a NumPy array", any}},
        Bad{"Pickle", "a.pkl", "\x80\4\x95\0\0"s, automatic, {"this is a Python pickle", any}},
        Bad{"Sqlite", "a.db", "SQLite format 3\0\x10"s, automatic, {"this is an SQLite database", any}},
        Bad{"Html",
            "a.jsonl",
            "\n<!DOCTYPE html>\n<html>",
            automatic,
            {"this is an HTML page", any, "was a download redirected?"}},
        Bad{"Xml", "a.jsonl", "<?xml version=\"1.0\"?><Error>", automatic, {"this is an XML file", any}},
        Bad{"LfsPointer",
            "a.jsonl",
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
            automatic,
            {"this is a Git LFS pointer", any, "git lfs pull"}},
        Bad{"Utf16", "a.jsonl", "\xff\xfe{\0\"\0"s, automatic, {"this is a text in UTF-16", any, "UTF-8"}},
        Bad{"Utf16WithoutMark", "a.csv", "\0t\0e\0x\0t"s, automatic, {"this is a text in UTF-16", any}},
        Bad{"Binary", "a.jsonl", "\1\2\3\0\4"s, automatic, {"this is a binary file", any}}),
    [](const auto& bad) { return bad.param.test; });

TEST(Records, FoldersAreNamed) {
  const test::ScratchFolder folder;
  const auto message = [&] { return test::message_of<InputError>([&] { records_of(folder.path()); }); };
  EXPECT_EQ(message(), folder.path() + ": a regular file is expected, found a directory");
  folder.write("dataset_info.json", "{}");
  EXPECT_THAT(message(), HasSubstr("found a folder of Hugging Face datasets; save a split of it with"));
}

TEST(Records, ANameThatLooksLikeAMagicIsAText) {
  const test::ScratchFolder folder;
  for (const char* name : {"ORCHID", "PAR1", "BZh", "GGUF", "ARROW1", "Obj"}) {
    const std::string path = folder.write("a.csv", std::string(name) + ",b\n1,2\n");
    EXPECT_EQ(records_of(path).size(), 1u) << name;
  }
}

TEST(Records, AMissingFieldIsNamedWithThoseThatAreThere) {
  const nlohmann::json row = {{"text", "x"}, {"class", "1"}};
  EXPECT_STREQ(missing_field(row, "label", "a.csv: row 1").what(),
               "a.csv: row 1: field \"label\" is missing; the record has \"class\", \"text\"");
  const nlohmann::json chat = {{"messages", nlohmann::json::array()}};
  EXPECT_STREQ(missing_field(chat, "prompt", "a.jsonl:1").what(),
               "a.jsonl:1: field \"prompt\" is missing: this is a chat: set data.task.type: chat");
  const nlohmann::json alpaca = {{"instruction", "a"}, {"output", "b"}};
  EXPECT_STREQ(
      missing_field(alpaca, "prompt", "a.jsonl:1").what(),
      "a.jsonl:1: field \"prompt\" is missing; the record has \"instruction\", \"output\"; these are "
      "Alpaca's fields: set data.task.type: completion and data.task.format: alpaca");
  const nlohmann::json nested = {{"title", "a"}, {"qas", {{{"prompt", "b"}}}}};
  EXPECT_STREQ(
      missing_field(nested, "prompt", "a.jsonl:1").what(),
      "a.jsonl:1: field \"prompt\" is missing; the record has \"qas\", \"title\"; data.task.records finds "
      "records that lie within \"qas\"");
}

}  // namespace
}  // namespace mezzo
