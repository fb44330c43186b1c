#include "mezzo/io/hdf5_file.h"

#include <gtest/gtest.h>
#include <hdf5.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "file_size_limit.h"
#include "mezzo/core/error.h"
#include "mezzo/io/checksummed_file.h"
#include "mezzo/io/files.h"
#include "mezzo/io/sha256.h"
#include "scratch.h"

namespace mezzo {
namespace {

using test::message_of;
using test::names_in;
using test::read_all;
using test::ScratchFolder;
using Shape = std::vector<std::int64_t>;

std::vector<std::byte> random_bytes(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

/// A snapshot in small: two trainables, an optimizer without state, a step.
void write_small(const std::string& path, std::uint64_t step = 7) {
  Hdf5Writer writer(path);
  writer.write_array("/trainables/layers.0.q_proj.lora_A.weight", DType::f32, Shape{2, 31},
                     random_bytes(2 * 31 * 4, static_cast<unsigned>(step)));
  writer.write_array("/trainables/layers.0.q_proj.lora_B.weight", DType::f32, Shape{33},
                     random_bytes(33 * 4, static_cast<unsigned>(step + 1)));
  writer.create_group("/optimizer");
  writer.write_attribute("/meta", "step", step);
  writer.write_attribute("/meta", "model", std::string("models/tiny"));
  writer.commit();
}

/// Whether a file holds exactly what write_small() wrote; throws as the reader does.
bool is_small(const Hdf5Reader& reader, std::uint64_t step) {
  return reader.read_u64("/meta", "step") == step && reader.read_string("/meta", "model") == "models/tiny" &&
         reader.array_names("/optimizer").empty() &&
         reader.read_array("/trainables/layers.0.q_proj.lora_A.weight").data ==
             random_bytes(2 * 31 * 4, static_cast<unsigned>(step)) &&
         reader.read_array("/trainables/layers.0.q_proj.lora_B.weight").data ==
             random_bytes(33 * 4, static_cast<unsigned>(step + 1));
}

/// Puts `content` in a file's place. A file that is cut to nothing and written again would be flushed at once
/// by some file systems (ext4's auto_da_alloc); a new one is not.
void replace(const std::string& path, const std::string& content) {
  remove_file(path);
  std::ofstream(path, std::ios::binary) << content;
}

void write_sidecar(const std::string& path) {
  replace(sha256_sidecar_path(path), sha256_of_file(path) + "  x\n");
}

// ---- what is written is read --------------------------------------------------------------------------

TEST(Hdf5File, RoundTripOfEveryTypeAndShape) {
  const ScratchFolder folder;
  const std::string path = folder / "a.h5";
  const std::vector<Shape> shapes = {
      {}, {0}, {1}, {31}, {33, 1}, {3, 0, 5}, {7, 33, 5}, {1, 1, 257, 3}, {300'001}, {3, 700'001}};
  std::vector<Hdf5Array> arrays;
  for (const Shape& shape : shapes) {
    for (const DType dtype :
         {DType::f32, DType::f16, DType::bf16, DType::i32, DType::i64, DType::u64, DType::f64}) {
      std::size_t bytes = size_of(dtype);
      for (const std::int64_t extent : shape) bytes *= static_cast<std::size_t>(extent);
      if (bytes > 1'000'000 && dtype != DType::f32) continue;
      arrays.push_back({dtype, shape, random_bytes(bytes, static_cast<unsigned>(arrays.size()))});
    }
  }
  {
    Hdf5Writer writer(path);
    for (std::size_t i = 0; i < arrays.size(); ++i)
      writer.write_array(fmt::format("/g/array.{}", i), arrays[i].dtype, arrays[i].shape, arrays[i].data);
    writer.commit();
  }
  const Hdf5Reader reader(path);
  EXPECT_EQ(reader.array_names("/g").size(), arrays.size());
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    const std::string name = fmt::format("/g/array.{}", i);
    const Hdf5Array found = reader.read_array(name);
    EXPECT_EQ(found.dtype, arrays[i].dtype);
    EXPECT_EQ(found.shape, arrays[i].shape);
    EXPECT_TRUE(found.data == arrays[i].data) << name;
    std::vector<std::byte> target(arrays[i].data.size());
    reader.read_array(name, arrays[i].dtype, arrays[i].shape, target);
    EXPECT_TRUE(target == arrays[i].data) << name;
  }
}

TEST(Hdf5File, AttributesGroupsAndNames) {
  const ScratchFolder folder;
  const std::string path = folder / "a.h5";
  const std::string long_text(1 << 20, 'x');  // far above what an attribute of the old format could hold
  {
    Hdf5Writer writer(path);
    writer.create_group("/optimizer");
    writer.create_group("/a/b");
    writer.create_group("/a/b");
    writer.write_array("/t/b.weight", DType::f32, Shape{}, std::vector<std::byte>(4));
    writer.write_array("/t/B.weight", DType::f32, Shape{}, std::vector<std::byte>(4));
    writer.write_array("/t/ünïcode 名", DType::f32, Shape{}, std::vector<std::byte>(4));
    writer.write_attribute("/meta", "u", std::numeric_limits<std::uint64_t>::max());
    writer.write_attribute("/meta", "i", std::numeric_limits<std::int64_t>::min());
    writer.write_attribute("/meta", "d", -0.0);
    writer.write_attribute("/meta", "n", std::numeric_limits<double>::quiet_NaN());
    writer.write_attribute("/meta", "s", "ünïcode 名\n");
    writer.write_attribute("/meta", "empty", "");
    writer.write_attribute("/meta", "long", long_text);
    writer.commit();
  }
  const Hdf5Reader reader(path);
  EXPECT_TRUE(reader.has_group("/optimizer"));
  EXPECT_TRUE(reader.has_group("/a/b"));
  EXPECT_FALSE(reader.has_group("/a/c"));
  EXPECT_FALSE(reader.has_group("/x/c"));
  EXPECT_FALSE(reader.has_group("/t/b.weight"));
  EXPECT_EQ(reader.array_names("/t"), (std::vector<std::string>{"B.weight", "b.weight", "ünïcode 名"}));
  EXPECT_EQ(reader.read_u64("/meta", "u"), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(reader.read_i64("/meta", "i"), std::numeric_limits<std::int64_t>::min());
  EXPECT_TRUE(std::signbit(reader.read_f64("/meta", "d")));
  EXPECT_TRUE(std::isnan(reader.read_f64("/meta", "n")));
  EXPECT_EQ(reader.read_string("/meta", "s"), "ünïcode 名\n");
  EXPECT_EQ(reader.read_string("/meta", "empty"), "");
  EXPECT_EQ(reader.read_string("/meta", "long"), long_text);
  EXPECT_TRUE(reader.has_attribute("/meta", "s"));
  EXPECT_FALSE(reader.has_attribute("/meta", "t"));
}

TEST(Hdf5File, KeepsItsPromisesAboutTheFormat) {
  const ScratchFolder folder;
  const std::string path = folder / "a.h5";
  {
    Hdf5Writer writer(path);
    writer.write_array("/g/a", DType::f32, Shape{1000, 3001}, std::vector<std::byte>(4 * 1000 * 3001));
    writer.commit();
  }
  EXPECT_EQ(read_all(path)[8], 3) << "the superblock of H5F_LIBVER_V110 has version 3";
  EXPECT_EQ(read_all(sha256_sidecar_path(path)), sha256_of_file(path) + "  a.h5\n");
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t dataset = H5Dopen2(file, "/g/a", H5P_DEFAULT);
  const hid_t properties = H5Dget_create_plist(dataset);
  EXPECT_EQ(H5Pget_layout(properties), H5D_CHUNKED);
  hsize_t chunk[2] = {};
  EXPECT_EQ(H5Pget_chunk(properties, 2, chunk), 2);
  EXPECT_EQ(chunk[1], 3001u);
  EXPECT_EQ(chunk[0], (1u << 20) / 4 / 3001);
  unsigned flags = 0;
  std::size_t values = 0;
  EXPECT_EQ(H5Pget_nfilters(properties), 1);
  EXPECT_EQ(H5Pget_filter2(properties, 0, &flags, &values, nullptr, 0, nullptr, nullptr),
            H5Z_FILTER_FLETCHER32);
  H5Pclose(properties);
  H5Dclose(dataset);
  H5Fclose(file);
}

TEST(Hdf5File, EqualContentsAreEqualBytes) {
  const ScratchFolder folder;
  write_small(folder / "a.h5");
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // HDF5's times are in seconds
  write_small(folder / "b.h5");
  EXPECT_TRUE(read_all(folder / "a.h5") == read_all(folder / "b.h5"));
}

// ---- refusing to write --------------------------------------------------------------------------------

TEST(Hdf5Writer, AppearsOnlyWithCommit) {
  const ScratchFolder folder;
  {
    Hdf5Writer writer(folder / "a.h5");
    writer.write_array("/g/a", DType::f32, Shape{1}, std::vector<std::byte>(4));
    EXPECT_FALSE(file_exists(folder / "a.h5"));
  }
  EXPECT_TRUE(names_in(folder.path()).empty());
  Hdf5Writer writer(folder / "a.h5");
  writer.commit();
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"a.h5", "a.h5.sha256"}));
  EXPECT_THROW(writer.create_group("/g"), IoError);
  EXPECT_THROW(writer.write_array("/g/a", DType::f32, Shape{1}, std::vector<std::byte>(4)), IoError);
  EXPECT_THROW(writer.write_attribute("/g", "a", 1.0), IoError);
  EXPECT_THROW(writer.commit(), IoError);
}

TEST(Hdf5Writer, RefusesBadArguments) {
  const ScratchFolder folder;
  const std::string path = folder / "a.h5";
  Hdf5Writer writer(path);
  const std::vector<std::byte> four(4);
  for (const char* bad : {"", "/", "a", "a/b", "/a//b", "/a/", "/./a", "/a/..", "//a"}) {
    EXPECT_EQ(message_of<IoError>([&] {
                writer.write_array(bad, DType::f32, Shape{1}, four);
              }).rfind(path + ":", 0),
              0u);
    EXPECT_THROW(writer.create_group(bad), IoError) << bad;
  }
  EXPECT_THROW(writer.create_group(std::string("/a\0b", 4)), IoError);
  EXPECT_EQ(message_of<IoError>([&] { writer.write_array("/g/a", DType::f32, Shape{3}, four); }),
            path + ": /g/a: 4 bytes are no array of F32 [3]");
  EXPECT_THROW(writer.write_array("/g/a", DType::f32, Shape{-1}, four), IoError);
  EXPECT_THROW(writer.write_array("/g/a", DType::f32, Shape{1ll << 62, 1ll << 62}, four), IoError);
  EXPECT_THROW(writer.write_array("/g/a", DType::f32, Shape(33, 1), four), IoError);
  writer.write_array("/g/a", DType::f32, Shape{1}, four);
  EXPECT_NE(message_of<IoError>([&] {
              writer.write_array("/g/a", DType::f32, Shape{1}, four);
            }).find(path + ": /g/a: cannot create the array: "),
            std::string::npos);
  EXPECT_THROW(writer.create_group("/g/a/b"), IoError);
  EXPECT_THROW(writer.write_attribute("/g", "", 1.0), IoError);
  EXPECT_THROW(writer.write_attribute("/g", "a", std::string("a\0b", 3)), IoError);
  writer.write_attribute("/g", "a", 1.0);
  EXPECT_THROW(writer.write_attribute("/g", "a", 1.0), IoError);
  writer.commit();  // what was refused did no harm
  EXPECT_EQ(Hdf5Reader(path).array_names("/g"), std::vector<std::string>{"a"});
}

TEST(Hdf5Writer, MissingFolderAndFullDisk) {
  const ScratchFolder folder;
  EXPECT_NE(
      message_of<IoError>([&] { Hdf5Writer writer(folder / "none/a.h5"); }).find("No such file or directory"),
      std::string::npos);
  write_small(folder / "a.h5", 1);
  const std::string before = read_all(folder / "a.h5");
  {
    const test::FileSizeLimit limit(2000);
    EXPECT_EQ(message_of<IoError>([&] { write_small(folder / "a.h5", 2); }).rfind(folder / "a.h5", 0), 0u);
  }
  EXPECT_TRUE(read_all(folder / "a.h5") == before);
  EXPECT_TRUE(is_small(Hdf5Reader(folder / "a.h5"), 1));
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"a.h5", "a.h5.sha256"}));
}

// ---- refusing to read ---------------------------------------------------------------------------------

constexpr std::size_t stride = 5;  // every byte passes as well, but takes long

TEST(Hdf5Reader, AFlippedByteIsRefusedBeforeHdf5SeesTheFile) {
  const ScratchFolder folder;
  const std::string path = folder / "a.h5";
  write_small(path);
  const std::string whole = read_all(path);
  for (std::size_t at = 0; at < whole.size(); at += stride) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    replace(path, damaged);
    const std::string message = message_of<InputError>([&] { Hdf5Reader reader(path); });
    ASSERT_EQ(message.rfind(path + ": the file is damaged: its SHA-256 is ", 0), 0u) << message;
  }
  folder.write("a.h5", whole);
  EXPECT_TRUE(is_small(Hdf5Reader(path), 7));
}

TEST(Hdf5Reader, CutFilesAreRefused) {
  const ScratchFolder folder;
  const std::string path = folder / "a.h5";
  write_small(path);
  const std::string whole = read_all(path);
  for (std::size_t size = 0; size < whole.size(); size += 1 + size / 64) {
    replace(path, whole.substr(0, size));
    ASSERT_NE(message_of<InputError>([&] { Hdf5Reader reader(path); }).find("the file is damaged"),
              std::string::npos);
  }
}

TEST(Hdf5Reader, SidecarMustBeThereAndBeALineOfSha256sum) {
  const ScratchFolder folder;
  const std::string path = folder / "a.h5";
  const std::string sidecar = sha256_sidecar_path(path);
  write_small(path);
  const std::string good = read_all(sidecar);
  for (std::size_t at = 0; at < 66; ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    replace(sidecar, bad);
    ASSERT_THROW(Hdf5Reader reader(path), InputError) << at;
  }
  for (const std::string& bad :
       {std::string(), good.substr(0, 64), good.substr(0, good.size() - 1), "x" + good}) {
    replace(sidecar, bad);
    EXPECT_EQ(message_of<InputError>([&] {
                Hdf5Reader reader(path);
              }).rfind(sidecar + ": not a line of sha256sum", 0),
              0u);
  }
  std::string upper = good;
  std::transform(upper.begin(), upper.begin() + 64, upper.begin(), ::toupper);
  folder.write("a.h5.sha256", upper);
  EXPECT_THROW(Hdf5Reader reader(path), InputError);
  remove_file(sidecar);
  EXPECT_EQ(message_of<InputError>([&] { Hdf5Reader reader(path); }),
            path + ": the checksum beside it, " + sidecar + ", is missing");
  EXPECT_EQ(message_of<IoError>([&] { Hdf5Reader reader(folder / "none.h5"); }),
            (folder / "none.h5") + ": cannot open: No such file or directory");
  folder.write("a.h5.sha256",
               good.substr(0, 64) + " *" + "another name\n");  // as sha256sum --binary, of a copy
  EXPECT_TRUE(is_small(Hdf5Reader(path), 7));
}

TEST(Hdf5Reader, DamageUnderAGoodSidecarIsNeverAWrongArray) {
  // Somebody recomputed the SHA-256 of a damaged file: HDF5's own checksums (Fletcher32, metadata) are next
  // in line.
  const ScratchFolder folder;
  const std::string path = folder / "a.h5";
  write_small(path);
  const std::string whole = read_all(path);
  const auto first = random_bytes(2 * 31 * 4, 7);
  const auto second = random_bytes(33 * 4, 8);
  std::size_t refused = 0;
  for (std::size_t at = 0; at < whole.size(); at += stride) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << at % 8));
    replace(path, damaged);
    write_sidecar(path);
    try {
      const Hdf5Reader reader(path);
      ASSERT_TRUE(reader.read_array("/trainables/layers.0.q_proj.lora_A.weight").data == first) << at;
      ASSERT_TRUE(reader.read_array("/trainables/layers.0.q_proj.lora_B.weight").data == second) << at;
      reader.array_names("/optimizer");
      reader.read_u64("/meta", "step");
      reader.read_string("/meta", "model");
    } catch (const InputError& error) {
      ++refused;
      ASSERT_EQ(std::string(error.what()).rfind(path, 0), 0u) << error.what();
    }
  }
  EXPECT_GT(refused, (2 * 31 * 4 + 33 * 4) / stride);  // every byte of data, and more
}

TEST(Hdf5Reader, CutFilesUnderAGoodSidecarAreRefused) {
  const ScratchFolder folder;
  const std::string path = folder / "a.h5";
  write_small(path);
  const std::string whole = read_all(path);
  for (std::size_t size = 0; size < whole.size(); size += 1 + size / 16) {
    replace(path, whole.substr(0, size));
    write_sidecar(path);
    ASSERT_THROW(is_small(Hdf5Reader(path), 7), InputError) << size;
  }
}

/// A file made by other means than Hdf5Writer, with a good sidecar.
std::string write_foreign(const ScratchFolder& folder, const std::function<void(hid_t file)>& content) {
  const std::string path = folder / "foreign.h5";
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  H5Gclose(H5Gcreate2(file, "/g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  content(file);
  H5Fclose(file);
  write_sidecar(path);
  return path;
}

void make_dataset(hid_t file, const char* name, hid_t type, std::vector<hsize_t> extents,
                  const std::function<void(hid_t)>& set_up = {}) {
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
  if (set_up) set_up(properties);
  const hid_t space = H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr);
  const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
  ASSERT_GE(dataset, 0);
  H5Dclose(dataset);
  H5Sclose(space);
  H5Pclose(properties);
}

TEST(Hdf5Reader, AnArrayMustBeWhatIsExpected) {
  const ScratchFolder folder;
  const std::string path = folder / "a.h5";
  {
    Hdf5Writer writer(path);
    writer.write_array("/g/a", DType::f32, Shape{2, 3}, std::vector<std::byte>(24));
    writer.write_attribute("/g", "i", std::int64_t{-1});
    writer.write_attribute("/g", "s", "text");
    writer.commit();
  }
  const Hdf5Reader reader(path);
  std::vector<std::byte> target(24);
  const auto read = [&](const char* name, DType dtype, const Shape& shape) {
    return message_of<InputError>([&] { reader.read_array(name, dtype, shape, target); });
  };
  EXPECT_EQ(read("/g/a", DType::f32, {3, 2}), path + ": /g/a: F32 [3, 2] is expected, found F32 [2, 3]");
  EXPECT_EQ(read("/g/a", DType::f32, {6}), path + ": /g/a: F32 [6] is expected, found F32 [2, 3]");
  EXPECT_EQ(read("/g/a", DType::i32, {2, 3}), path + ": /g/a: I32 [2, 3] is expected, found F32 [2, 3]");
  EXPECT_EQ(read("/g/b", DType::f32, {2, 3}), path + ": /g/b: missing; an array is expected");
  EXPECT_EQ(read("/h/a", DType::f32, {2, 3}), path + ": /h/a: missing; an array is expected");
  EXPECT_EQ(read("/g", DType::f32, {2, 3}), path + ": /g: an array is expected");
  target.resize(23);
  EXPECT_EQ(read("/g/a", DType::f32, {2, 3}), path + ": /g/a: 24 bytes cannot be read into a buffer of 23");
  EXPECT_EQ(message_of<InputError>([&] { reader.array_names("/g/a"); }),
            path + ": /g/a: a group is expected");
  EXPECT_EQ(message_of<InputError>([&] { reader.array_names("/h"); }),
            path + ": /h: missing; a group is expected");
  EXPECT_EQ(message_of<InputError>([&] { reader.read_u64("/g", "i"); }),
            path + ": /g.i: a 64-bit unsigned integer is expected");
  EXPECT_EQ(message_of<InputError>([&] { reader.read_string("/g", "i"); }),
            path + ": /g.i: a text of fixed length is expected");
  EXPECT_EQ(message_of<InputError>([&] { reader.read_i64("/g", "s"); }),
            path + ": /g.s: a 64-bit signed integer is expected");
  EXPECT_EQ(message_of<InputError>([&] { reader.read_f64("/g", "x"); }),
            path + ": /g.x: missing; a 64-bit float is expected");
  EXPECT_EQ(message_of<InputError>([&] { reader.read_f64("/h", "x"); }),
            path + ": /h: missing; a group is expected");
}

TEST(Hdf5Reader, ForeignTypesAndLayoutsAreRefused) {
  const ScratchFolder folder;
  struct Case {
    const char* what;
    hid_t type;
    std::vector<hsize_t> extents;
    std::function<void(hid_t)> set_up;
    const char* message;
  };
  const hid_t compound = H5Tcreate(H5T_COMPOUND, 8);
  H5Tinsert(compound, "x", 0, H5T_IEEE_F32LE);
  H5Tinsert(compound, "y", 4, H5T_IEEE_F32LE);
  const auto early = [](hid_t p) { H5Pset_alloc_time(p, H5D_ALLOC_TIME_EARLY); };
  const std::vector<Case> cases = {
      {"big-endian", H5T_IEEE_F32BE, {3}, early, "the element type is none of"},
      {"compound", compound, {3}, early, "the element type is none of"},
      {"text", H5T_C_S1, {3}, early, "the element type is none of"},
      {"8-bit integers", H5T_STD_I8LE, {3}, early, "the element type is none of"},
      {"promised, not stored", H5T_IEEE_F32LE, {3}, {}, "does not fit the 0 bytes stored"},
      {"a petabyte, not stored",
       H5T_IEEE_F64LE,
       {1ull << 47},
       [](hid_t p) {
         const hsize_t chunk = 1024;
         H5Pset_chunk(p, 1, &chunk);
       },
       "does not fit the 0 bytes stored"},
      {"more than 64 bits of bytes",
       H5T_IEEE_F64LE,
       {1ull << 40, 1ull << 40},
       [](hid_t p) {
         const hsize_t chunk[2] = {1024, 1};
         H5Pset_chunk(p, 2, chunk);
       },
       "does not fit"},
      {"compressed",
       H5T_IEEE_F32LE,
       {3},
       [](hid_t p) {
         const hsize_t chunk = 3;
         H5Pset_chunk(p, 1, &chunk);
         H5Pset_deflate(p, 1);
         H5Pset_alloc_time(p, H5D_ALLOC_TIME_EARLY);
       },
       "filter 1 is not accepted"},
      {"another file",
       H5T_IEEE_F32LE,
       {3},
       [](hid_t p) { H5Pset_external(p, "/etc/hostname", 0, 12); },
       "data in another file is not accepted"},
  };
  for (const Case& c : cases) {
    const std::string path =
        write_foreign(folder, [&](hid_t file) { make_dataset(file, "/g/a", c.type, c.extents, c.set_up); });
    const std::string message = message_of<InputError>([&] { Hdf5Reader(path).read_array("/g/a"); });
    EXPECT_EQ(message.rfind(path + ": /g/a: ", 0), 0u) << c.what << ": " << message;
    EXPECT_NE(message.find(c.message), std::string::npos) << c.what << ": " << message;
  }
  H5Tclose(compound);

  const std::string path = write_foreign(folder, [](hid_t file) {
    const hid_t space = H5Screate(H5S_NULL);
    H5Dclose(H5Dcreate2(file, "/g/a", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
  });
  EXPECT_EQ(message_of<InputError>([&] { Hdf5Reader(path).read_array("/g/a"); }),
            path + ": /g/a: the array has no data space");
}

TEST(Hdf5Reader, LinksThatLeadElsewhereAreRefused) {
  const ScratchFolder folder;
  write_small(folder / "other.h5");
  const std::string path = write_foreign(folder, [&](hid_t file) {
    H5Lcreate_soft("/g", file, "/soft", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_external((folder / "other.h5").c_str(), "/trainables", file, "/external", H5P_DEFAULT,
                       H5P_DEFAULT);
  });
  const Hdf5Reader reader(path);
  for (const char* name : {"/soft", "/external"}) {
    EXPECT_EQ(message_of<InputError>([&] { reader.array_names(name); }),
              path + ": " + name + ": a link to another place is not accepted");
    EXPECT_THROW(reader.read_array(std::string(name) + "/a"), InputError);
    EXPECT_THROW(reader.read_u64(name, "step"), InputError);
  }
}

TEST(Hdf5Reader, ForeignAttributesAreRefusedOrRead) {
  const ScratchFolder folder;
  const std::string path = write_foreign(folder, [&](hid_t file) {
    const hid_t group = H5Gopen2(file, "/g", H5P_DEFAULT);
    const hsize_t two = 2;
    const hid_t pair = H5Screate_simple(1, &two, nullptr);
    const hid_t one = H5Screate(H5S_SCALAR);
    H5Aclose(H5Acreate2(group, "pair", H5T_STD_U64LE, pair, H5P_DEFAULT, H5P_DEFAULT));
    const hid_t variable = H5Tcopy(H5T_C_S1);
    H5Tset_size(variable, H5T_VARIABLE);
    H5Aclose(H5Acreate2(group, "variable", variable, one, H5P_DEFAULT, H5P_DEFAULT));
    H5Tclose(variable);
    const hid_t ascii = H5Tcopy(H5T_C_S1);  // the default of other writers, ended by a NUL
    H5Tset_size(ascii, 7);
    const hid_t attribute = H5Acreate2(group, "ascii", ascii, one, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, ascii, "text\0?");
    H5Aclose(attribute);
    H5Aclose(H5Acreate2(group, "unwritten", ascii, one, H5P_DEFAULT, H5P_DEFAULT));
    H5Tclose(ascii);
    H5Sclose(one);
    H5Sclose(pair);
    H5Gclose(group);
  });
  const Hdf5Reader reader(path);
  EXPECT_EQ(message_of<InputError>([&] { reader.read_u64("/g", "pair"); }),
            path + ": /g.pair: one value is expected, found an array");
  EXPECT_EQ(message_of<InputError>([&] { reader.read_string("/g", "variable"); }),
            path + ": /g.variable: a text of fixed length is expected");
  EXPECT_EQ(reader.read_string("/g", "ascii"), "text");
  EXPECT_EQ(reader.read_string("/g", "unwritten"), "");
}

TEST(Hdf5Reader, AFileThatIsNoHdf5IsNamed) {
  const ScratchFolder folder;
  const std::string path = folder.write("a.h5", "not HDF5");
  write_sidecar(path);
  EXPECT_EQ(
      message_of<InputError>([&] { Hdf5Reader reader(path); }).rfind(path + ": cannot open the file: ", 0),
      0u);
}

TEST(Hdf5File, LeavesTheLibrarysErrorPrintingAsItWas) {
  const ScratchFolder folder;
  H5E_auto2_t before = nullptr;
  void* data = nullptr;
  H5Eget_auto2(H5E_DEFAULT, &before, &data);
  write_small(folder / "a.h5");
  EXPECT_THROW(Hdf5Reader(folder / "a.h5").read_array("/none"), InputError);
  H5E_auto2_t after = nullptr;
  H5Eget_auto2(H5E_DEFAULT, &after, &data);
  EXPECT_EQ(before, after);
}

}  // namespace
}  // namespace mezzo
