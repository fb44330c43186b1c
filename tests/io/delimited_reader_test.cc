#include "mezzo/io/delimited_reader.h"

#include <gmock/gmock.h>

#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

using Rows = std::vector<std::vector<std::string>>;

class DelimitedReaderTest : public ::testing::Test {
 protected:
  Rows rows(std::string_view text, char separator = ',') {
    DelimitedReader reader(open_source(folder_.write("t", text)), separator);
    Rows rows;
    for (std::vector<std::string> fields; reader.next(fields);) rows.push_back(fields);
    return rows;
  }
  std::string error(std::string_view text, char separator = ',') {
    return test::message_of<InputError>([&] { rows(text, separator); }).substr((folder_ / "t").size());
  }

  test::ScratchFolder folder_;
};

TEST_F(DelimitedReaderTest, ReadsWhatRfc4180Describes) {
  EXPECT_EQ(rows("a,b\nc,d"), (Rows{{"a", "b"}, {"c", "d"}}));
  EXPECT_EQ(rows("a,b\r\nc,d\r\n"), (Rows{{"a", "b"}, {"c", "d"}}));
  EXPECT_EQ(rows("\"a\"\"b\",\"x,\ny\r\nz\"\n,\n"), (Rows{{"a\"b", "x,\ny\r\nz"}, {"", ""}}));
  EXPECT_EQ(rows("\"\",\"\"\"\"\n"), (Rows{{"", "\""}}));
  EXPECT_EQ(rows(" a , b \n"), (Rows{{" a ", " b "}}));
  EXPECT_EQ(rows("\xEF\xBB\xBF\"a\",b\n"), (Rows{{"a", "b"}}));
  EXPECT_EQ(rows("a\tb,c\n\"d\te\"\tf\n", '\t'), (Rows{{"a", "b,c"}, {"d\te", "f"}}));
  EXPECT_EQ(rows("5\" disk\tb\n", '\t'), (Rows{{"5\" disk", "b"}}));
  EXPECT_EQ(rows(""), Rows{});
  EXPECT_EQ(rows("a,b\n\n  \r\n\n"), (Rows{{"a", "b"}}));
  // Longer than what is read at once.
  const std::string block((std::size_t{1} << 20) - 2, 'x');
  EXPECT_EQ(rows(block + ",\"" + block + "\"\"\"\r\ny"), (Rows{{block, block + "\""}, {"y"}}));
}

TEST_F(DelimitedReaderTest, SaysTheLineARecordBeginsAt) {
  DelimitedReader reader(open_source(folder_.write("t", "a,b\n\"1\n2\n3\",x\nc,d\n")), ',');
  std::vector<std::string> fields;
  std::vector<std::size_t> lines;
  while (reader.next(fields)) lines.push_back(reader.line());
  EXPECT_EQ(lines, (std::vector<std::size_t>{1, 2, 5}));
}

TEST_F(DelimitedReaderTest, ErrorsNameTheLine) {
  using testing::HasSubstr;
  EXPECT_THAT(error("a,b\nc,\"d\ne"), HasSubstr(":2: a quoted field is not closed"));
  EXPECT_THAT(error("a,b\nc,\"d\"e\n"),
              HasSubstr(":2: text behind the closing quote of a field, expected a ,"));
  EXPECT_THAT(error("a\n\"b\"c\n", '\t'),
              HasSubstr(":2: text behind the closing quote of a field, expected a tab"));
  EXPECT_THAT(error("a,b\n5\" disk,x\n"), HasSubstr(":2: a \" within a field without quotes"));
  EXPECT_THAT(error("a,b\rc,d\r"), HasSubstr(":1: a carriage return without a line feed"));
  EXPECT_THAT(error("a,b\n\nc,d\n"), HasSubstr(":2: the line is blank, expected a record"));
  EXPECT_THAT(error("a,b\nc,caf\xe9\n"), HasSubstr(":2: field 2 is not UTF-8 from its byte 4 on"));
}

}  // namespace
}  // namespace mezzo
