#include "mezzo/io/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "mezzo/core/error.h"
#include "mezzo/io/convert.h"
#include "mezzo/io/files.h"
#include "scratch.h"

namespace mezzo {
namespace {

using test::message_of;
using test::read_all;
using test::ScratchFolder;

constexpr float infinity = std::numeric_limits<float>::infinity();

/// A file's bytes: the header's length, the header, the data.
std::string file_bytes(std::string_view header, std::string_view data = "") {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(header.size() >> (8 * i));
  return bytes.append(header).append(data);
}

std::string length_field(std::uint64_t length) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
  return bytes;
}

/// A header's entry, as text: "name":{...}.
std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{}]}})", name, dtype, shape,
                     offsets);
}

std::string object(const std::vector<std::string>& members) {
  return fmt::format("{{{}}}", fmt::join(members, ","));
}

template <typename T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::vector<float> floats_of(const TensorInfo& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  to_float(tensor, values);
  return values;
}

class SafetensorsTest : public testing::Test {
 protected:
  Safetensors open(std::string_view bytes) {
    return Safetensors::open(folder_.write("m.safetensors", bytes));
  }
  /// The error's message without the path in front.
  std::string error_of(std::string_view bytes) {
    const std::string message = message_of<InputError>([&] { open(bytes); });
    const std::string path = folder_ / "m.safetensors";
    EXPECT_TRUE(message.starts_with(path)) << message;
    return message.substr(std::min(path.size(), message.size()));
  }
  std::string header_error(std::string_view header, std::size_t data_bytes = 0) {
    return error_of(file_bytes(header, std::string(data_bytes, '\0')));
  }

  ScratchFolder folder_;
};

// ---- files that are right -----------------------------------------------------------------------------

TEST_F(SafetensorsTest, ReadsAFile) {
  const std::string header = object({entry("w", "F32", "2,3", "0,24"), entry("b", "BF16", "1", "24,26"),
                                     R"("__metadata__":{"format":"pt","k":""})"});
  const std::vector<float> w = {1, -2, 3, 0.5, -0.0f, infinity};
  const Safetensors file = open(file_bytes(header, raw(w) + "\x80\x3f"));
  EXPECT_EQ(file.names(), (std::vector<std::string>{"b", "w"}));
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"k", ""}}));
  EXPECT_EQ(file.files(), std::vector<std::string>{folder_ / "m.safetensors"});
  const TensorInfo& tensor = file.at("w");
  EXPECT_EQ(tensor.name, "w");
  EXPECT_EQ(tensor.dtype, DType::f32);
  EXPECT_EQ(tensor.shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(tensor.bytes, 24u);
  EXPECT_EQ(tensor.file, folder_ / "m.safetensors");
  EXPECT_EQ(tensor.elements(), 6);
  EXPECT_EQ(tensor.row_elements(), 3);
  EXPECT_EQ(floats_of(tensor), w);
  EXPECT_EQ(floats_of(file.at("b")), std::vector<float>{1});
  EXPECT_EQ(&file.at("w"), file.find("w"));
  EXPECT_TRUE(file.contains("w"));
  EXPECT_FALSE(file.contains("__metadata__"));
  EXPECT_EQ(file.find("v"), nullptr);
  EXPECT_EQ(message_of<InputError>([&] { file.at("v"); }),
            folder_ / "m.safetensors: tensor \"v\" is missing");
}

TEST_F(SafetensorsTest, AcceptsWhatTheFormatAllows) {
  EXPECT_TRUE(open(file_bytes("{}")).names().empty());
  EXPECT_TRUE(open(file_bytes("{}   ")).names().empty());  // padding
  EXPECT_TRUE(open(file_bytes(R"({"__metadata__":{}})")).metadata().empty());
  // A scalar, empty tensors between others, unknown members, the order of the file against that of the
  // offsets.
  const Safetensors file =
      open(file_bytes(object({entry("z", "F32", "", "0,4"), entry("e", "F32", "3,0", "4,4"),
                              entry("f", "U64", "0,9223372036854775807", "8,8"),
                              R"("a":{"x":[1],"data_offsets":[4,8],"shape":[1,1,1],"dtype":"F32"})"}),
                      raw<float>({1, 2})));
  EXPECT_EQ(floats_of(file.at("z")), std::vector<float>{1});
  EXPECT_EQ(floats_of(file.at("a")), std::vector<float>{2});
  EXPECT_TRUE(floats_of(file.at("e")).empty());
  EXPECT_EQ(file.at("e").row_elements(), 0);
  EXPECT_EQ(file.at("f").elements(), 0);
  EXPECT_TRUE(file.at("z").shape.empty());
}

TEST_F(SafetensorsTest, ReadsTensorsAtAnyAddress) {
  for (std::size_t padding = 0; padding < 8; ++padding) {
    const std::string header = object({entry("byte", "U8", "1", "0,1"), entry("a", "F32", "9", "1,37"),
                                       entry("b", "F64", "1", "37,45"), entry("c", "F16", "1", "45,47")});
    std::vector<float> a(9);
    std::iota(a.begin(), a.end(), 0.25f);
    const Safetensors file =
        open(file_bytes(header + std::string(padding, ' '),
                        std::string("x") + raw(a) + raw<double>({-7}) + raw<std::uint16_t>({0x3c00})));
    EXPECT_EQ(floats_of(file.at("a")), a);
    EXPECT_EQ(floats_of(file.at("b")), std::vector<float>{-7});
    EXPECT_EQ(floats_of(file.at("c")), std::vector<float>{1});
  }
}

TEST_F(SafetensorsTest, KnowsEveryTypeAndRefusesOnlyTheUseOfSome) {
  const std::pair<const char*, int> bits[] = {
      {"BOOL", 8},        {"F4", 4},          {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},   {"I8", 8},
      {"F8_E5M2", 8},     {"F8_E4M3", 8},     {"F8_E8M0", 8}, {"I16", 16},    {"U16", 16}, {"F16", 16},
      {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"BF16", 16},   {"I32", 32},    {"U32", 32}, {"F32", 32},
      {"C64", 64},        {"F64", 64},        {"I64", 64},    {"U64", 64}};
  for (const auto& [type, size] : bits) {
    const std::string header = object({entry("t", type, "4", fmt::format("0,{}", size / 2))});
    const Safetensors file = open(file_bytes(header, std::string(static_cast<std::size_t>(size / 2), '\0')));
    EXPECT_EQ(file.names(), std::vector<std::string>{"t"});
    const bool read = std::ranges::any_of(
        std::initializer_list<std::string_view>{"F16", "BF16", "F32", "F64", "I32", "I64", "U64"},
        [t = type](std::string_view name) { return name == t; });
    if (read) EXPECT_EQ(name_of(file.at("t").dtype), type);
    else
      EXPECT_EQ(
          message_of<InputError>([&] { file.find("t"); }),
          folder_ / "m.safetensors" + fmt::format(": tensor \"t\": the dtype {} is not supported", type));
    EXPECT_NE(header_error(object({entry("t", type, "4", "0,1")}), 1), "");  // another size
  }
}

// ---- files that are wrong -----------------------------------------------------------------------------

TEST_F(SafetensorsTest, ChecksTheLengthOfTheHeader) {
  EXPECT_EQ(error_of(""), ": no safetensors file: it has 0 bytes, its header's length alone takes 8");
  EXPECT_EQ(error_of(std::string(7, '\0')),
            ": no safetensors file: it has 7 bytes, its header's length alone takes 8");
  EXPECT_EQ(error_of(length_field(100'000'001) + "{}"),
            ": no safetensors file: its header would have 100000001 bytes, at most 100000000 are allowed");
  EXPECT_EQ(error_of(length_field(~std::uint64_t{0}) + "{}"),
            ": no safetensors file: its header would have 18446744073709551615 bytes, at most 100000000 are "
            "allowed");
  EXPECT_EQ(error_of(length_field(3) + "{}"),
            ": the header has 3 bytes, but the file ends after 2 of them: was it cut off?");
  EXPECT_EQ(error_of(length_field(0)), ": no safetensors file: the header does not begin with '{'");
}

TEST_F(SafetensorsTest, AHeaderOfTheLargestLengthIsRead) {
  EXPECT_TRUE(open(file_bytes("{}" + std::string(max_safetensors_header_bytes - 2, ' '))).names().empty());
}

TEST_F(SafetensorsTest, ChecksTheJson) {
  EXPECT_EQ(header_error(" {}"), ": no safetensors file: the header does not begin with '{'");
  EXPECT_EQ(header_error("[]"), ": no safetensors file: the header does not begin with '{'");
  EXPECT_TRUE(header_error("{").starts_with(" (header):1:1: invalid JSON: "));
  EXPECT_TRUE(header_error("{}}").starts_with(" (header):1:3: invalid JSON: "));
  EXPECT_TRUE(
      header_error(std::string_view("{}\0", 3)).starts_with(" (header):1:3: invalid JSON: a NUL byte"));
  EXPECT_TRUE(header_error("{\"\xff\":1}").starts_with(" (header):1:3: invalid JSON: "));
  EXPECT_EQ(header_error(object({entry("a", "F32", "1", "0,4"), entry("a", "F32", "1", "0,4")}), 4),
            " (header):1:57: the key \"a\" stands twice in one object");
  EXPECT_EQ(header_error(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4),
            " (header):1:27: the key \"dtype\" stands twice in one object");
  EXPECT_EQ(header_error(R"({"a":{"x":)" + std::string(99, '[') + std::string(99, ']') + "}}"),
            " (header):1:109: more than 100 levels of nesting");
}

TEST_F(SafetensorsTest, ChecksTheMetadata) {
  EXPECT_EQ(header_error(R"({"__metadata__":{"a":1}})"),
            ": __metadata__: \"a\" must be a string, found number");
  EXPECT_EQ(header_error(R"({"__metadata__":["a"]})"),
            ": __metadata__ must be an object of strings, found array");
  EXPECT_EQ(header_error(R"({"__metadata__":null})"),
            ": __metadata__ must be an object of strings, found null");
}

TEST_F(SafetensorsTest, ChecksATensorsMembers) {
  const auto with = [&](const std::string& body) { return header_error(object({R"("t":)" + body}), 8); };
  EXPECT_EQ(with("1"),
            ": tensor \"t\": an object with dtype, shape and data_offsets is expected, found number");
  EXPECT_EQ(with(R"(["F32",[2],[0,8]])"),
            ": tensor \"t\": an object with dtype, shape and data_offsets is expected, found array");
  EXPECT_EQ(with(R"({"shape":[2],"data_offsets":[0,8]})"), ": tensor \"t\": \"dtype\" is missing");
  EXPECT_EQ(with(R"({"dtype":"F32","data_offsets":[0,8]})"), ": tensor \"t\": \"shape\" is missing");
  EXPECT_EQ(with(R"({"dtype":"F32","shape":[2]})"), ": tensor \"t\": \"data_offsets\" is missing");
  EXPECT_EQ(with(R"({"dtype":32,"shape":[2],"data_offsets":[0,8]})"),
            ": tensor \"t\": dtype must be a string, found number");
  EXPECT_EQ(with(R"({"dtype":"f32","shape":[2],"data_offsets":[0,8]})"),
            ": tensor \"t\": the dtype \"f32\" is unknown");
  EXPECT_EQ(with(R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})"),
            ": tensor \"t\": shape must be an array, found number");
  for (const char* size : {"-2", "2.0", "\"2\"", "null", "[2]", "2e0", "18446744073709551616", "true"})
    EXPECT_TRUE(
        with(fmt::format(R"({{"dtype":"F32","shape":[{}],"data_offsets":[0,8]}})", size))
            .starts_with(": tensor \"t\": a size in shape must be a 64-bit integer, not negative; found "))
        << size;
  EXPECT_EQ(with(R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8]})"),
            ": tensor \"t\": the size 9223372036854775808 in shape is too large");
  for (const char* offsets : {"8", "[8]", "[0,8,8]", "[]", "{}", "null"})
    EXPECT_EQ(with(fmt::format(R"({{"dtype":"F32","shape":[2],"data_offsets":{}}})", offsets)),
              ": tensor \"t\": data_offsets must be an array of two numbers");
  EXPECT_EQ(with(R"({"dtype":"F32","shape":[2],"data_offsets":[-8,0]})"),
            ": tensor \"t\": data_offsets[0] must be a 64-bit integer, not negative; found -8");
  EXPECT_EQ(with(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8.0]})"),
            ": tensor \"t\": data_offsets[1] must be a 64-bit integer, not negative; found 8.0");
}

TEST_F(SafetensorsTest, ChecksSizes) {
  const auto with = [&](const std::string& dtype, const std::string& shape, const std::string& offsets,
                        std::size_t data_bytes) {
    return header_error(object({entry("t", dtype, shape, offsets)}), data_bytes);
  };
  EXPECT_EQ(with("F32", "2", "0,4", 4),
            ": tensor \"t\": shape [2] of F32 takes 8 bytes, but data_offsets [0, 4] hold 4");
  EXPECT_EQ(with("F32", "1", "0,8", 8),
            ": tensor \"t\": shape [1] of F32 takes 4 bytes, but data_offsets [0, 8] hold 8");
  EXPECT_EQ(with("F32", "4294967296,4294967296", "0,8", 8),
            ": tensor \"t\": the shape [4294967296, 4294967296] overflows 64 bits");
  EXPECT_EQ(with("F32", "4611686018427387904", "0,0", 0),  // times 4 bytes: 2^64, that is 0
            ": tensor \"t\": the size of shape [4611686018427387904] overflows 64 bits");
  EXPECT_EQ(with("F4", "3", "0,1", 1), ": tensor \"t\": 3 elements of type F4 do not fill whole bytes");
}

TEST_F(SafetensorsTest, ChecksThatTensorsCoverTheData) {
  const auto with = [&](const std::vector<std::string>& tensors, std::size_t data_bytes) {
    return header_error(object(tensors), data_bytes);
  };
  const std::string a = entry("a", "F32", "2", "0,8");
  EXPECT_EQ(with({entry("a", "F32", "2", "8,0")}, 8), ": tensor \"a\": data_offsets [8, 0] run backwards");
  EXPECT_EQ(with({a}, 7),
            ": tensor \"a\": data_offsets [0, 8] reach beyond the 7 bytes of data: was the file cut off?");
  EXPECT_EQ(with({entry("a", "F32", "2", "18446744073709551612,18446744073709551615")}, 7),
            ": tensor \"a\": data_offsets [18446744073709551612, 18446744073709551615] reach beyond the 7 "
            "bytes of data: "
            "was the file cut off?");
  EXPECT_EQ(with({a, entry("b", "F32", "2", "4,12")}, 12),
            ": tensor \"b\": data_offsets [4, 12] overlap those of \"a\", [0, 8]");
  EXPECT_EQ(with({a, entry("b", "F32", "2", "0,8")}, 8),
            ": tensor \"b\": data_offsets [0, 8] overlap those of \"a\", [0, 8]");
  EXPECT_EQ(with({a, entry("b", "F32", "0", "4,4")}, 8),
            ": tensor \"b\": data_offsets [4, 4] overlap those of \"a\", [0, 8]");
  EXPECT_EQ(with({entry("a", "F32", "1", "4,8")}, 8),
            ": tensor \"a\": data_offsets [4, 8] leave a hole: bytes 0 to 4 belong to no tensor");
  EXPECT_EQ(with({a, entry("b", "F32", "1", "9,13")}, 13),
            ": tensor \"b\": data_offsets [9, 13] leave a hole: bytes 8 to 9 belong to no tensor");
  EXPECT_EQ(with({a}, 9), ": the tensors take 8 bytes, but the file holds 9");
  EXPECT_EQ(header_error("{}", 1), ": the tensors take 0 bytes, but the file holds 1");
}

TEST_F(SafetensorsTest, NamesInMessagesAreOneLine) {
  const std::string message = header_error(R"({"a\n\u0001":1})");
  EXPECT_TRUE(message.starts_with(R"(: tensor "a\n\x01": )")) << message;
}

TEST_F(SafetensorsTest, ALfsPointerIsCalledThat) {
  EXPECT_EQ(error_of("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"),
            ": this is a Git LFS pointer, not the weights themselves: fetch them with git lfs pull");
}

TEST_F(SafetensorsTest, AnyDamageIsAnErrorOrHarmless) {
  const std::string good =
      file_bytes(object({entry("a", "F32", "2,1", "0,8"), entry("b", "BF16", "2", "8,12"),
                         entry("c", "U8", "1", "12,13"), R"("__metadata__":{"format":"pt"})"}),
                 "0123456789abc");
  const auto try_to_read = [&](const std::string& bytes) {
    try {
      const Safetensors file = open(bytes);
      for (const std::string& name : file.names()) floats_of(file.at(name));
    } catch (const InputError&) {
      return false;
    }
    return true;
  };
  for (std::size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(try_to_read(good.substr(0, size))) << size;
  std::mt19937 random(7);
  const auto below = [&](std::size_t bound) { return random() % bound; };
  for (int round = 0; round < 1500; ++round) {
    std::string bytes = good;
    for (std::size_t change = 0; change <= below(3); ++change) {
      const std::size_t at = below(bytes.size());
      if (const auto kind = below(4); kind == 0) bytes[at] = static_cast<char>(random());
      else if (kind == 1) bytes[at] = "0123456789[]{},:\"\\-. "[below(21)];
      else if (kind == 2) bytes.erase(at, 1 + below(8));
      else bytes.insert(at, bytes.substr(below(bytes.size()), below(8)));
      if (bytes.empty()) break;
    }
    try_to_read(bytes);  // whatever comes of it: no crash, no other exception, nothing for a sanitizer
  }
}

// ---- conversion ---------------------------------------------------------------------------------------

TEST_F(SafetensorsTest, ConvertsRows) {
  std::vector<float> values(5 * 33);
  std::iota(values.begin(), values.end(), 0.f);
  std::vector<std::byte> words(values.size() * 2);
  from_float(values, DType::bf16, words.data());  // exact up to 256
  const Safetensors file = open(file_bytes(
      object({entry("t", "BF16", "5,11,3", "0,330"), entry("s", "F32", "", "330,334"),
              entry("i", "I32", "1", "334,338")}),
      std::string(reinterpret_cast<const char*>(words.data()), words.size()) + raw<float>({3}) + "0000"));
  const TensorInfo& tensor = file.at("t");
  for (const auto& [first, rows] : {std::pair(0, 5), {1, 1}, {4, 1}, {2, 3}, {5, 0}, {0, 0}}) {
    std::vector<float> out(static_cast<std::size_t>(rows) * 33);
    to_float(tensor, first, rows, out);
    EXPECT_TRUE(std::equal(out.begin(), out.end(), values.begin() + first * 33));
  }
  std::vector<float> row(33), one(1);
  EXPECT_THROW(to_float(tensor, 5, 1, row), Error);
  EXPECT_THROW(to_float(tensor, -1, 1, row), Error);
  EXPECT_THROW(to_float(tensor, 0, 2, row), Error);
  EXPECT_THROW(to_float(tensor, row), Error);
  to_float(file.at("s"), 0, 1, one);
  EXPECT_EQ(one[0], 3);
  EXPECT_EQ(message_of<InputError>([&] { to_float(file.at("i"), one); }),
            folder_ / "m.safetensors: tensor \"i\": the dtype is I32; F32, F16, BF16 or F64 is expected");
}

TEST_F(SafetensorsTest, ReleasedTensorsStayReadable) {
  const Safetensors file = open(
      file_bytes(object({entry("t", "F32", "2", "0,8"), entry("e", "F32", "0", "8,8")}), raw<float>({1, 2})));
  file.prefetch(file.at("t"));
  file.release(file.at("t"));
  file.release(file.at("e"));
  EXPECT_EQ(floats_of(file.at("t")), (std::vector<float>{1, 2}));
  TensorInfo other = file.at("t");
  other.data = nullptr;
  EXPECT_THROW(file.release(other), Error);
}

// ---- folders and shards -------------------------------------------------------------------------------

class CheckpointTest : public SafetensorsTest {
 protected:
  void shard(const std::string& file, const std::vector<std::string>& names) {
    std::vector<std::string> members = {fmt::format(R"("__metadata__":{{"format":"pt","from":"{}"}})", file)};
    std::vector<float> data;
    for (const std::string& name : names) {
      members.push_back(entry(name, "F32", "1", fmt::format("{},{}", 4 * data.size(), 4 * data.size() + 4)));
      data.push_back(static_cast<float>(name[0]));
    }
    folder_.write(file, file_bytes(object(members), raw(data)));
  }
  std::string index(const std::string& weight_map) {
    const std::string total = R"("metadata":{"total_size":"not to be trusted"})";
    return folder_.write("model.safetensors.index.json", object({total, R"("weight_map":)" + weight_map}));
  }
  std::string open_error(const std::string& path) {
    return message_of<InputError>([&] { Safetensors::open(path); });
  }
};

TEST_F(CheckpointTest, OpensShardsByFolderAndByIndex) {
  shard("one.safetensors", {"a", "c"});
  shard("two.safetensors", {"b"});
  const std::string path = index(R"({"a":"one.safetensors","b":"two.safetensors","c":"one.safetensors"})");
  for (const std::string& opened : {folder_.path(), folder_.path() + "/", path}) {
    const Safetensors model = Safetensors::open(opened);
    EXPECT_EQ(model.names(), (std::vector<std::string>{"a", "b", "c"}));
    EXPECT_EQ(model.files(),
              (std::vector<std::string>{folder_ / "one.safetensors", folder_ / "two.safetensors"}));
    for (const std::string& name : model.names())
      EXPECT_EQ(floats_of(model.at(name)), std::vector<float>{static_cast<float>(name[0])});
    EXPECT_EQ(model.at("b").file, folder_ / "two.safetensors");
    EXPECT_EQ(model.metadata().at("from"), "one.safetensors");
    model.release(model.at("b"));
    EXPECT_EQ(message_of<InputError>([&] { model.at("d"); }), opened + ": tensor \"d\" is missing");
  }
}

TEST_F(CheckpointTest, RefusesOneFileBesideAnIndexOfOthers) {
  shard("one.safetensors", {"a"});
  index(R"({"a":"one.safetensors"})");
  shard("model.safetensors", {"b"});
  EXPECT_EQ(open_error(folder_.path()),
            folder_.path() +
                ": model.safetensors and model.safetensors.index.json are both there, and the index places "
                "tensor \"a\" in \"one.safetensors\"; expected one of them");
  EXPECT_EQ(Safetensors::open(folder_ / "one.safetensors").names(), std::vector<std::string>{"a"});
  EXPECT_EQ(Safetensors::open(folder_ / "model.safetensors").names(), std::vector<std::string>{"b"});
  index(R"({"b":"model.safetensors"})");
  EXPECT_EQ(Safetensors::open(folder_.path()).names(), std::vector<std::string>{"b"});
}

TEST_F(CheckpointTest, SaysWhatWasLookedFor) {
  const std::string neither =
      folder_.path() + ": neither model.safetensors nor model.safetensors.index.json is there";
  EXPECT_EQ(open_error(folder_.path()), neither);
  folder_.write("adapter_model.safetensors", "");
  EXPECT_EQ(open_error(folder_.path()),
            neither + "; adapter_model.safetensors is there: this is an adapter, a whole model is expected");
  std::filesystem::remove(folder_ / "adapter_model.safetensors");
  folder_.write("pytorch_model.bin", "");
  EXPECT_EQ(open_error(folder_.path()),
            neither +
                "; pytorch_model.bin is there, but only safetensors are read: save the model again with "
                "transformers (save_pretrained)");
  EXPECT_EQ(message_of<IoError>([&] { Safetensors::open(folder_ / "none"); }),
            folder_ / "none: cannot open: No such file or directory");
}

TEST_F(CheckpointTest, ChecksTheIndex) {
  shard("one.safetensors", {"a"});
  const std::string path = folder_ / "model.safetensors.index.json";
  for (const char* text : {"[]", "{}", R"({"weight_map":[]})", R"({"weight_map":"x"})", "1"}) {
    folder_.write("model.safetensors.index.json", text);
    EXPECT_EQ(open_error(path),
              path + ": an object with the member \"weight_map\", itself an object, is expected");
  }
  folder_.write("model.safetensors.index.json", "{\"weight_map\":\n}");
  EXPECT_TRUE(open_error(path).starts_with(path + ":2:1: invalid JSON: "));
  index(R"({"a":"one.safetensors","a":"one.safetensors"})");
  EXPECT_TRUE(open_error(path).ends_with("the key \"a\" stands twice in one object"));
  index(R"({"a":1})");
  EXPECT_EQ(open_error(path), path + ": weight_map: tensor \"a\": a file name is expected, found number");
  for (const char* name : {"", ".", "..", "/etc/passwd", "../one.safetensors", "sub/one.safetensors",
                           "./one.safetensors", "a\\\\b", "one.safetensors\\u0000"}) {
    index(fmt::format(R"({{"a":"{}"}})", name));
    EXPECT_TRUE(open_error(path).ends_with("is no plain file name of the index's own folder")) << name;
  }
  index(R"({"a":"one.safetensors","b":"two.safetensors"})");
  EXPECT_EQ(open_error(path), path + ": the shard \"two.safetensors\" is missing");
}

TEST_F(CheckpointTest, IndexAndShardsMustAgree) {
  shard("one.safetensors", {"a", "b"});
  shard("two.safetensors", {"c"});
  const std::string one = folder_ / "one.safetensors", two = folder_ / "two.safetensors";
  const std::string path = index(R"({"a":"one.safetensors","c":"two.safetensors"})");
  EXPECT_EQ(open_error(path), one + ": tensor \"b\" is not in " + path);
  index(R"({"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"})");
  EXPECT_EQ(open_error(path),
            one + ": tensor \"b\" stands here, but " + path + " places it in \"two.safetensors\"");
  index(R"({"a":"one.safetensors","b":"one.safetensors","c":"two.safetensors","d":"two.safetensors"})");
  EXPECT_EQ(open_error(path), two + ": tensor \"d\" is missing, though " + path + " places it here");
  shard("two.safetensors", {"c", "a"});
  index(R"({"a":"one.safetensors","b":"one.safetensors","c":"two.safetensors"})");
  EXPECT_EQ(open_error(path),
            two + ": tensor \"a\" stands here, but " + path + " places it in \"one.safetensors\"");
}

// ---- writing ------------------------------------------------------------------------------------------

/// A source that hands its bytes over in pieces.
TensorSource source(std::string name, DType dtype, std::vector<std::int64_t> shape, std::string bytes) {
  return {std::move(name), dtype, std::move(shape), [bytes](const ByteSink& sink) {
            const std::size_t half = bytes.size() / 2;
            sink(bytes_of(bytes).first(half));
            sink(bytes_of(bytes).subspan(half));
          }};
}

TEST_F(SafetensorsTest, WritesTheReferenceImplementationsBytes) {
  // tests/goldens/make_safetensors_cases.py wrote the file from the same tensors.
  const std::vector<float> values = {0, -1.5, 65504, 0x1p-14f, 0.333251953125f, -infinity};
  std::vector<float> counting(33);
  std::iota(counting.begin(), counting.end(), 0.f);
  const std::vector<float> tenth = {0.1f}, one = {1};
  const TensorSource tensors[] = {
      float_source("a.f16", {2, 3}, values, DType::f16),
      float_source("z.bf16", {2, 3}, values, DType::bf16),
      float_source("b.f32", {2, 3}, values),
      float_source("a.f64", {2, 3}, values, DType::f64),
      float_source("scalar", {}, tenth),
      float_source("empty", {3, 0}, {}),
      float_source("odd.bf16", {33}, counting, DType::bf16),
      source("ids", DType::i64, {2}, raw<std::int64_t>({-1, std::int64_t{1} << 40})),
      source("ints", DType::i32, {3}, raw<std::int32_t>({1, -2, 3})),
      float_source("quote \" tab \t Ä 🙂", {1}, one),
  };
  const std::string golden = MEZZO_TEST_DATA "/safetensors/reference.safetensors";
  const std::string path = folder_ / "written.safetensors";
  write_safetensors(path, tensors, {{"format", "pt"}});
  EXPECT_EQ(read_all(path), read_all(golden));

  const Safetensors file = Safetensors::open(golden);
  EXPECT_EQ(file.names().size(), std::size(tensors));
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  EXPECT_EQ(floats_of(file.at("b.f32")), values);
  EXPECT_EQ(floats_of(file.at("a.f64")), values);
  EXPECT_EQ(floats_of(file.at("a.f16")), values);
  EXPECT_EQ(floats_of(file.at("odd.bf16")), counting);
  EXPECT_EQ(floats_of(file.at("scalar")), tenth);
  EXPECT_EQ(file.at("empty").shape, (std::vector<std::int64_t>{3, 0}));
}

TEST_F(SafetensorsTest, LongTensorsAreConvertedInPieces) {
  std::vector<float> values((std::size_t{1} << 17) + 257);  // more than two pieces of float_source()
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 255) - 100.f;
  const std::string path = folder_ / "w.safetensors";
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
    const TensorSource tensor =
        float_source("t", {1, static_cast<std::int64_t>(values.size())}, values, dtype);
    write_safetensors(path, std::span(&tensor, 1));
    const Safetensors file = Safetensors::open(path);
    EXPECT_EQ(file.at("t").dtype, dtype);
    EXPECT_EQ(floats_of(file.at("t")), values);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file.at("t").data) % 8, 0u);
  }
}

TEST_F(SafetensorsTest, RefusesToWriteWhatCouldNotBeRead) {
  const std::vector<float> two = {1, 2};
  const auto error = [&](std::vector<TensorSource> tensors) {
    const std::string message =
        message_of<Error>([&] { write_safetensors(folder_ / "w.safetensors", tensors); });
    EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));  // neither a file nor a temporary
    return message;
  };
  const std::string path = folder_ / "w.safetensors";
  EXPECT_EQ(error({float_source("t", {3}, two)}),
            path + ": tensor \"t\": 8 bytes were produced, 12 are expected");
  EXPECT_EQ(error({float_source("t", {1}, two)}),
            path + ": tensor \"t\": 8 bytes were produced, 4 are expected");
  EXPECT_EQ(error({float_source("t", {2}, two), float_source("t", {2}, two)}),
            path + ": tensor \"t\" stands twice in one checkpoint");
  EXPECT_EQ(error({float_source("__metadata__", {2}, two)}), path + ": no tensor may be called __metadata__");
  EXPECT_EQ(error({float_source("\xff", {2}, two)}), path + R"(: the name "\xff" is not UTF-8)");
  EXPECT_EQ(error({float_source("t", {-2}, two)}), path + ": tensor \"t\": a size of [-2] is negative");
  EXPECT_THROW(write_safetensors(folder_ / "none/w.safetensors", {}), IoError);
}

TEST_F(CheckpointTest, WritesShardsThatReadBack) {
  std::vector<float> values(40);
  std::iota(values.begin(), values.end(), 0.f);
  const auto part = [&](std::string name, std::size_t first, std::size_t count) {
    return float_source(std::move(name), {static_cast<std::int64_t>(count)},
                        std::span(values).subspan(first, count));
  };
  // Shards of at most 64 bytes, in the order given: z + c (64), huge (80, alone), b + a (16).
  const TensorSource tensors[] = {part("z", 0, 10), part("c", 10, 6), part("huge", 16, 20), part("b", 36, 3),
                                  part("a", 39, 1)};
  const std::vector<std::string> files =
      write_model_safetensors(folder_.path(), tensors, {{"format", "pt"}}, 64);
  EXPECT_EQ(files,
            (std::vector<std::string>{"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                      "model-00003-of-00003.safetensors", "model.safetensors.index.json"}));
  const auto index = nlohmann::json::parse(read_all(folder_ / "model.safetensors.index.json"));
  EXPECT_EQ(index, nlohmann::json::parse(R"({"metadata": {"total_size": 160}, "weight_map": {
      "z": "model-00001-of-00003.safetensors", "c": "model-00001-of-00003.safetensors",
      "huge": "model-00002-of-00003.safetensors",
      "b": "model-00003-of-00003.safetensors", "a": "model-00003-of-00003.safetensors"}})"));
  const Safetensors model = Safetensors::open(folder_.path());
  std::vector<float> read;
  for (const TensorSource& tensor : tensors) {
    const std::vector<float> piece = floats_of(model.at(tensor.name));
    read.insert(read.end(), piece.begin(), piece.end());
  }
  EXPECT_EQ(read, values);
  EXPECT_EQ(model.metadata().at("format"), "pt");

  EXPECT_EQ(message_of<IoError>([&] { write_model_safetensors(folder_.path(), tensors); }),
            folder_.path() + ": cannot write the weights: model.safetensors.index.json is there already");
}

TEST_F(CheckpointTest, WhatFitsIsOneFile) {
  const std::vector<float> values = {1, 2};
  const TensorSource tensor = float_source("t", {2}, values);
  EXPECT_EQ(write_model_safetensors(folder_.path(), std::span(&tensor, 1), {}, 8),
            std::vector<std::string>{"model.safetensors"});
  EXPECT_EQ(floats_of(Safetensors::open(folder_.path()).at("t")), values);
  EXPECT_THROW(write_model_safetensors(folder_.path(), std::span(&tensor, 1)), IoError);
}

}  // namespace
}  // namespace mezzo
