#include "mezzo/io/hdf5_file.h"

// Newer releases keep 1.10's functions under their own names and version the plain ones.
#define H5_USE_110_API
#include <hdf5.h>

#include <algorithm>
#include <bit>
#include <optional>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/io/checksummed_file.h"
#include "mezzo/io/files.h"
#include "mezzo/io/record_file.h"

namespace mezzo {
namespace {

static_assert(std::endian::native == std::endian::little,
              "arrays and attributes are stored as they lie in memory");

constexpr std::uint64_t chunk_bytes = 1u << 20;

// ---- HDF5's ids and errors ----------------------------------------------------------------------------

/// HDF5 cleans up at the process's exit. After a close that failed, on a full disk or a damaged file, 1.10
/// crashes or loops there, and the exit status is lost. Everything has an owner here that closes it, so
/// nothing is left to do. HDF5 wants to be told before it is first used.
[[maybe_unused]] const herr_t no_cleanup_at_exit = H5dont_atexit();

/// Keeps HDF5 from printing its error stack; ours is the one message. Restores what was set before, since the
/// library belongs to the whole process.
class QuietHdf5 {
 public:
  QuietHdf5() {
    H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  QuietHdf5(const QuietHdf5&) = delete;
  QuietHdf5& operator=(const QuietHdf5&) = delete;
  ~QuietHdf5() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

/// What HDF5 says was wrong, from the innermost function that noticed.
std::string hdf5_message() {
  std::string message;
  const auto first = [](unsigned, const H5E_error2_t* error, void* target) -> herr_t {
    *static_cast<std::string*>(target) = error->desc != nullptr ? error->desc : "";
    return 1;  // enough
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first, &message);
  H5Eclear2(H5E_DEFAULT);
  std::replace(message.begin(), message.end(), '\n', ' ');
  return message.empty() ? "HDF5 gives no reason" : message;
}

/// The file and the object that a call is about, and the error that its failure is.
struct Context {
  enum class Kind { reading, writing };
  Kind kind;
  const std::string& file;
  std::string object;

  [[noreturn]] void fail(const std::string& what) const {
    const std::string message =
        object.empty() ? fmt::format("{}: {}", file, what) : fmt::format("{}: {}: {}", file, object, what);
    if (kind == Kind::reading) throw InputError("{}", message);
    throw IoError("{}", message);
  }
  /// Passes on a call's result; a negative one is HDF5's sign of failure.
  template <typename Result>
  Result check(Result result, const char* operation) const {
    if (result < 0) fail(fmt::format("cannot {}: {}", operation, hdf5_message()));
    return result;
  }
};

/// Owns an id, of whatever kind.
class Id {
 public:
  using Close = herr_t (*)(hid_t);
  Id(hid_t id, Close close) : id_(id), close_(close) {}
  Id(Id&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Id& operator=(Id&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Id() {
    if (id_ >= 0) close_(id_);
  }
  operator hid_t() const { return id_; }
  hid_t release() { return std::exchange(id_, -1); }

 private:
  hid_t id_;
  Close close_;
};

// ---- types and spaces ---------------------------------------------------------------------------------

/// A float of 16 bits with `exponent` of them for the exponent, as h5py and others know binary16.
Id float16_type(const Context& context, std::size_t exponent) {
  Id type(context.check(H5Tcopy(H5T_IEEE_F32LE), "make a type"), H5Tclose);
  const std::size_t mantissa = 15 - exponent;
  context.check(H5Tset_fields(type, 15, mantissa, exponent, 0, mantissa), "make a type");
  context.check(H5Tset_size(type, 2), "make a type");
  context.check(H5Tset_ebias(type, (std::size_t{1} << (exponent - 1)) - 1), "make a type");
  return type;
}

/// The type of an element in the file, which is also the one in memory: nothing is ever converted.
Id file_type(const Context& context, DType dtype) {
  const auto copy = [&](hid_t type) { return Id(context.check(H5Tcopy(type), "make a type"), H5Tclose); };
  switch (dtype) {
    case DType::f32:
      return copy(H5T_IEEE_F32LE);
    case DType::f64:
      return copy(H5T_IEEE_F64LE);
    case DType::i32:
      return copy(H5T_STD_I32LE);
    case DType::i64:
      return copy(H5T_STD_I64LE);
    case DType::u64:
      return copy(H5T_STD_U64LE);
    case DType::f16:
      return float16_type(context, 5);
    case DType::bf16:
      return float16_type(context, 8);
  }
  context.fail(fmt::format("unknown element type {}", static_cast<int>(dtype)));
}

/// A text of exactly this many bytes. Texts of variable length would lie in the file's global heap, the one
/// structure of the format without a checksum; HDF5 1.10 can loop for ever over a damaged one.
Id string_type(const Context& context, std::size_t bytes) {
  Id type(context.check(H5Tcopy(H5T_C_S1), "make a type"), H5Tclose);
  context.check(H5Tset_size(type, std::max<std::size_t>(bytes, 1)),
                "make a type");  // 0 is no size: "" is one NUL
  context.check(H5Tset_strpad(type, H5T_STR_NULLPAD), "make a type");
  context.check(H5Tset_cset(type, H5T_CSET_UTF8), "make a type");
  return type;
}

Id scalar_space(const Context& context) {
  return Id(context.check(H5Screate(H5S_SCALAR), "make a data space"), H5Sclose);
}

std::string text_of(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

/// Bytes of an array, or nothing where the shape is negative somewhere or the product leaves 63 bits.
std::optional<std::uint64_t> bytes_of_array(DType dtype, std::span<const std::int64_t> shape) {
  std::int64_t bytes = static_cast<std::int64_t>(size_of(dtype));
  for (const std::int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
  }
  return static_cast<std::uint64_t>(bytes);
}

/// Splits "/a/b" into its segments.
std::vector<std::string> segments_of(const Context& context) {
  const std::string& path = context.object;
  std::vector<std::string> segments;
  bool good = path.size() > 1 && path.front() == '/' && path.find('\0') == std::string::npos;
  for (std::size_t begin = 1; good && begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    segments.push_back(path.substr(begin, end - begin));
    good = !segments.back().empty() && segments.back() != "." && segments.back() != "..";
    begin = end + 1;
  }
  if (!good) context.fail("not a path such as \"/group/name\"");
  return segments;
}

std::string group_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

Id file_access(const Context& context) {
  Id access(context.check(H5Pcreate(H5P_FILE_ACCESS), "make a property list"), H5Pclose);
  context.check(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110), "set the format's bounds");
  // An id left open must be an error at the close, not a file that stays open behind our back.
  context.check(H5Pset_fclose_degree(access, H5F_CLOSE_SEMI), "set the close degree");
  // The run's folder is locked by its owner; HDF5's own locks fail on file systems that have none.
  context.check(H5Pset_file_locking(access, false, true), "set the locking");
  return access;
}

}  // namespace

// ---- reading ------------------------------------------------------------------------------------------

struct Hdf5Reader::Impl {
  std::string path;    ///< for messages
  std::uint64_t size;  ///< of the file, in bytes
  Id file;

  /// Opens `opened`, a file whose bytes are trusted; messages call it `path`.
  Impl(std::string name, const std::string& opened)
      : path(std::move(name)), size(file_size(opened)), file(open(path, opened)) {}

  static Id open(const std::string& path, const std::string& opened) {
    const QuietHdf5 quiet;
    const Context context = reading(path, "");
    return Id(context.check(H5Fopen(opened.c_str(), H5F_ACC_RDONLY, file_access(context)), "open the file"),
              H5Fclose);
  }

  static Context reading(const std::string& path, const std::string& object) {
    return Context{.kind = Context::Kind::reading, .file = path, .object = object};
  }
  Context about(const std::string& object) const { return reading(path, object); }

  /// Whether an object stands at a path. Only hard links count: a soft or external one may lead out of the
  /// file.
  bool exists(const Context& context) const {
    std::string prefix;
    for (const std::string& segment : segments_of(context)) {
      prefix += "/" + segment;
      if (context.check(H5Lexists(file, prefix.c_str(), H5P_DEFAULT), "look up the path") == 0) return false;
      H5L_info_t link{};
      context.check(H5Lget_info(file, prefix.c_str(), &link, H5P_DEFAULT), "look up the path");
      if (link.type != H5L_TYPE_HARD) context.fail("a link to another place is not accepted");
    }
    return true;
  }

  /// Opens the object at a path, which must be of the given kind.
  Id open_object(const Context& context, H5I_type_t kind, const char* expected) const {
    if (!exists(context)) context.fail(fmt::format("missing; {} is expected", expected));
    Id object(context.check(H5Oopen(file, context.object.c_str(), H5P_DEFAULT), "open"), H5Oclose);
    if (H5Iget_type(object) != kind) context.fail(fmt::format("{} is expected", expected));
    return object;
  }

  DType dtype_of(const Context& context, hid_t dataset) const {
    const Id type(context.check(H5Dget_type(dataset), "read the type"), H5Tclose);
    for (const DType dtype :
         {DType::f32, DType::f16, DType::bf16, DType::i32, DType::i64, DType::u64, DType::f64}) {
      if (context.check(H5Tequal(type, file_type(context, dtype)), "compare types") > 0) return dtype;
    }
    context.fail("the element type is none of F32, F16, BF16, I32, I64, U64, F64 (little-endian)");
  }

  std::vector<std::int64_t> shape_of(const Context& context, hid_t dataset) const {
    const Id space(context.check(H5Dget_space(dataset), "read the shape"), H5Sclose);
    if (H5Sget_simple_extent_type(space) == H5S_NULL) context.fail("the array has no data space");
    const int rank = context.check(H5Sget_simple_extent_ndims(space), "read the rank");
    std::vector<hsize_t> extents(static_cast<std::size_t>(rank));
    context.check(H5Sget_simple_extent_dims(space, extents.data(), nullptr), "read the shape");
    std::vector<std::int64_t> shape;
    for (const hsize_t extent : extents) {
      if (extent > static_cast<hsize_t>(INT64_MAX)) context.fail("an extent leaves 63 bits");
      shape.push_back(static_cast<std::int64_t>(extent));
    }
    return shape;
  }

  /// The array's bytes lie in this file, all of them, and need no code from elsewhere to read: a shape that
  /// promises more than is stored (to be filled in) and filters from plug-ins are refused.
  std::uint64_t check_storage(const Context& context, hid_t dataset, DType dtype,
                              std::span<const std::int64_t> shape) const {
    const Id properties(context.check(H5Dget_create_plist(dataset), "read the layout"), H5Pclose);
    const H5D_layout_t layout = H5Pget_layout(properties);
    if (layout != H5D_CHUNKED && layout != H5D_CONTIGUOUS && layout != H5D_COMPACT)
      context.fail("a chunked or contiguous array is expected");
    if (context.check(H5Pget_external_count(properties), "read the layout") != 0)
      context.fail("data in another file is not accepted");
    const int filters = context.check(H5Pget_nfilters(properties), "read the filters");
    for (int i = 0; i < filters; ++i) {
      unsigned flags = 0;
      std::size_t values = 0;
      const auto filter =
          H5Pget_filter2(properties, static_cast<unsigned>(i), &flags, &values, nullptr, 0, nullptr, nullptr);
      if (filter != H5Z_FILTER_FLETCHER32)
        context.fail(fmt::format("filter {} is not accepted", static_cast<int>(filter)));
    }
    const auto bytes = bytes_of_array(dtype, shape);
    const std::uint64_t stored = H5Dget_storage_size(dataset);
    if (!bytes || *bytes > stored || *bytes > size)
      context.fail(fmt::format("the shape {} does not fit the {} bytes stored", text_of(shape), stored));
    return *bytes;
  }

  void read(const Context& context, hid_t dataset, DType dtype, std::span<std::byte> target) const {
    if (target.empty()) return;
    context.check(H5Dread(dataset, file_type(context, dtype), H5S_ALL, H5S_ALL, H5P_DEFAULT, target.data()),
                  "read the array");
  }

  struct Attribute {
    Id id;
    Id type;
  };

  /// Opens an attribute, which must hold one value; `expected` says what, should it be missing.
  Attribute open_attribute(const Context& context, const std::string& group, const std::string& name,
                           const char* expected) const {
    const Id object = open_object(about(group), H5I_GROUP, "a group");
    if (context.check(H5Aexists(object, name.c_str()), "look up the attribute") == 0)
      context.fail(fmt::format("missing; {} is expected", expected));
    Id attribute(context.check(H5Aopen(object, name.c_str(), H5P_DEFAULT), "open the attribute"), H5Aclose);
    Id type(context.check(H5Aget_type(attribute), "read the type"), H5Tclose);
    const Id space(context.check(H5Aget_space(attribute), "read the shape"), H5Sclose);
    if (H5Sget_simple_extent_type(space) != H5S_SCALAR) context.fail("one value is expected, found an array");
    return {std::move(attribute), std::move(type)};
  }

  template <typename Value>
  Value read_number(const std::string& group, const std::string& name, DType dtype,
                    const char* expected) const {
    const QuietHdf5 quiet;
    const std::string object = group + "." + name;
    const Context context = about(object);
    const Attribute attribute = open_attribute(context, group, name, expected);
    if (context.check(H5Tequal(attribute.type, file_type(context, dtype)), "compare types") == 0)
      context.fail(fmt::format("{} is expected", expected));
    Value value{};
    context.check(H5Aread(attribute.id, attribute.type, &value), "read the attribute");
    return value;
  }
};

Hdf5Reader::Hdf5Reader(const std::string& path) {
  verify_sha256_sidecar(path);
  impl_ = std::make_unique<Impl>(path, path);
}
Hdf5Reader::Hdf5Reader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Hdf5Reader::Hdf5Reader(Hdf5Reader&&) noexcept = default;
Hdf5Reader& Hdf5Reader::operator=(Hdf5Reader&&) noexcept = default;
Hdf5Reader::~Hdf5Reader() = default;

bool Hdf5Reader::has_group(const std::string& path) const {
  const QuietHdf5 quiet;
  const Context context = impl_->about(path);
  if (!impl_->exists(context)) return false;
  const Id object(context.check(H5Oopen(impl_->file, path.c_str(), H5P_DEFAULT), "open"), H5Oclose);
  return H5Iget_type(object) == H5I_GROUP;
}

std::vector<std::string> Hdf5Reader::array_names(const std::string& group) const {
  const QuietHdf5 quiet;
  const Context context = impl_->about(group);
  const Id object = impl_->open_object(context, H5I_GROUP, "a group");
  std::vector<std::string> names;
  const auto collect = [](hid_t, const char* name, const H5L_info_t*, void* target) -> herr_t {
    static_cast<std::vector<std::string>*>(target)->emplace_back(name);
    return 0;
  };
  context.check(H5Literate(object, H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, collect, &names),
                "list the group");
  for (const std::string& name : names) {
    const std::string path = group + "/" + name;
    const Id member = impl_->open_object(impl_->about(path), H5I_DATASET, "an array");
  }
  std::sort(names.begin(), names.end());
  return names;
}

Hdf5Array Hdf5Reader::read_array(const std::string& path) const {
  const QuietHdf5 quiet;
  const Context context = impl_->about(path);
  const Id dataset = impl_->open_object(context, H5I_DATASET, "an array");
  Hdf5Array array{
      .dtype = impl_->dtype_of(context, dataset), .shape = impl_->shape_of(context, dataset), .data = {}};
  array.data.resize(impl_->check_storage(context, dataset, array.dtype, array.shape));
  impl_->read(context, dataset, array.dtype, array.data);
  return array;
}

void Hdf5Reader::read_array(const std::string& path, DType dtype, std::span<const std::int64_t> shape,
                            std::span<std::byte> target) const {
  const QuietHdf5 quiet;
  const Context context = impl_->about(path);
  const Id dataset = impl_->open_object(context, H5I_DATASET, "an array");
  const DType found_dtype = impl_->dtype_of(context, dataset);
  const std::vector<std::int64_t> found_shape = impl_->shape_of(context, dataset);
  if (found_dtype != dtype || !std::ranges::equal(found_shape, shape))
    context.fail(fmt::format("{} {} is expected, found {} {}", name_of(dtype), text_of(shape),
                             name_of(found_dtype), text_of(found_shape)));
  const std::uint64_t bytes = impl_->check_storage(context, dataset, dtype, shape);
  if (target.size() != bytes)
    context.fail(fmt::format("{} bytes cannot be read into a buffer of {}", bytes, target.size()));
  impl_->read(context, dataset, dtype, target);
}

bool Hdf5Reader::has_attribute(const std::string& group, const std::string& name) const {
  const QuietHdf5 quiet;
  const Context context = impl_->about(group);
  const Id object = impl_->open_object(context, H5I_GROUP, "a group");
  return context.check(H5Aexists(object, name.c_str()), "look up the attribute") > 0;
}

std::string Hdf5Reader::read_string(const std::string& group, const std::string& name) const {
  const QuietHdf5 quiet;
  const std::string object = group + "." + name;
  const Context context = impl_->about(object);
  const char* expected = "a text of fixed length";
  const Impl::Attribute attribute = impl_->open_attribute(context, group, name, expected);
  if (H5Tget_class(attribute.type) != H5T_STRING || H5Tis_variable_str(attribute.type) != 0)
    context.fail(fmt::format("{} is expected", expected));
  const std::size_t bytes = H5Tget_size(attribute.type);
  if (bytes > impl_->size)
    context.fail(fmt::format("a text of {} bytes in a file of {}", bytes, impl_->size));
  std::string text(bytes, '\0');
  context.check(H5Aread(attribute.id, attribute.type, text.data()), "read the attribute");
  text.resize(std::min(text.find('\0'), bytes));
  return text;
}

std::uint64_t Hdf5Reader::read_u64(const std::string& group, const std::string& name) const {
  return impl_->read_number<std::uint64_t>(group, name, DType::u64, "a 64-bit unsigned integer");
}

std::int64_t Hdf5Reader::read_i64(const std::string& group, const std::string& name) const {
  return impl_->read_number<std::int64_t>(group, name, DType::i64, "a 64-bit signed integer");
}

double Hdf5Reader::read_f64(const std::string& group, const std::string& name) const {
  return impl_->read_number<double>(group, name, DType::f64, "a 64-bit float");
}

// ---- writing ------------------------------------------------------------------------------------------

struct Hdf5Writer::Impl {
  struct Written {
    std::string path;
    DType dtype;
    std::vector<std::int64_t> shape;
    std::uint32_t crc;  ///< of the data: verification needs no second copy of it
  };

  struct Attribute {
    std::string group;
    std::string name;
    Hdf5Value value;
  };

  ChecksummedFile output;
  const std::string& path = output.path();
  Id file;
  std::vector<Written> arrays;
  std::vector<Attribute> attributes;

  explicit Impl(std::string name) : output(std::move(name)), file(create(path, output.temporary_path())) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  ~Impl() {
    const QuietHdf5 quiet;
    const Id closed = std::move(file);  // before the temporary file is removed
  }

  static Id create(const std::string& path, const std::string& temporary_path) {
    const QuietHdf5 quiet;
    const Context context{.kind = Context::Kind::writing, .file = path, .object = ""};
    // Times are tracked nowhere: equal contents give equal bytes. (The root group is created with the file's
    // properties.)
    Id creation(context.check(H5Pcreate(H5P_FILE_CREATE), "make a property list"), H5Pclose);
    context.check(H5Pset_obj_track_times(creation, false), "set up the file");
    const Id access = file_access(context);
    return Id(
        context.check(H5Fcreate(temporary_path.c_str(), H5F_ACC_TRUNC, creation, access), "create the file"),
        H5Fclose);
  }

  Context about(const std::string& object) const {
    if (file < 0) throw IoError("{}: cannot write: the file was committed already", path);
    return Context{.kind = Context::Kind::writing, .file = path, .object = object};
  }

  void create_group(const std::string& group) {
    const Context context = about(group);
    Id creation(context.check(H5Pcreate(H5P_GROUP_CREATE), "make a property list"), H5Pclose);
    context.check(H5Pset_obj_track_times(creation, false), "set up the group");
    std::string prefix;
    for (const std::string& segment : segments_of(context)) {
      prefix += "/" + segment;
      if (context.check(H5Lexists(file, prefix.c_str(), H5P_DEFAULT), "look up the group") > 0) continue;
      const Id made(
          context.check(H5Gcreate2(file, prefix.c_str(), utf8_links(context), creation, H5P_DEFAULT),
                        "create the group"),
          H5Gclose);
    }
  }

  static Id utf8_links(const Context& context) {
    Id links(context.check(H5Pcreate(H5P_LINK_CREATE), "make a property list"), H5Pclose);
    context.check(H5Pset_char_encoding(links, H5T_CSET_UTF8), "set the names' encoding");
    return links;
  }

  void write_attribute(const std::string& group, const std::string& name, const Id& type, const void* value) {
    create_group(group);
    const std::string object = group + "." + name;
    const Context context = about(object);
    if (name.empty() || name.find('\0') != std::string::npos) context.fail("not a name of an attribute");
    const Id target(context.check(H5Gopen2(file, group.c_str(), H5P_DEFAULT), "open the group"), H5Gclose);
    Id creation(context.check(H5Pcreate(H5P_ATTRIBUTE_CREATE), "make a property list"), H5Pclose);
    context.check(H5Pset_char_encoding(creation, H5T_CSET_UTF8), "set the name's encoding");
    const Id attribute(
        context.check(H5Acreate2(target, name.c_str(), type, scalar_space(context), creation, H5P_DEFAULT),
                      "create the attribute"),
        H5Aclose);
    context.check(H5Awrite(attribute, type, value), "write the attribute");
  }

  static bool holds(const Hdf5Reader& reader, const Attribute& expected) {
    const auto& [group, name, value] = expected;
    if (const auto* text = std::get_if<std::string>(&value)) return reader.read_string(group, name) == *text;
    if (const auto* u64 = std::get_if<std::uint64_t>(&value)) return reader.read_u64(group, name) == *u64;
    if (const auto* i64 = std::get_if<std::int64_t>(&value)) return reader.read_i64(group, name) == *i64;
    return std::bit_cast<std::uint64_t>(reader.read_f64(group, name)) ==
           std::bit_cast<std::uint64_t>(std::get<double>(value));
  }

  /// Reads the closed file back.
  void verify() const {
    const Hdf5Reader reader(std::make_unique<Hdf5Reader::Impl>(path, output.temporary_path()));
    for (const Written& expected : arrays) {
      const Hdf5Array found = reader.read_array(expected.path);
      if (found.dtype != expected.dtype || found.shape != expected.shape ||
          crc32c(found.data) != expected.crc)
        throw IoError("{}: {}: what was read back is not what was written", path, expected.path);
    }
    for (const Attribute& expected : attributes) {
      if (!holds(reader, expected))
        throw IoError("{}: {}.{}: what was read back is not what was written", path, expected.group,
                      expected.name);
    }
  }
};

Hdf5Writer::Hdf5Writer(std::string path) : impl_(std::make_unique<Impl>(std::move(path))) {}
Hdf5Writer::~Hdf5Writer() = default;

void Hdf5Writer::create_group(const std::string& path) {
  const QuietHdf5 quiet;
  impl_->create_group(path);
}

void Hdf5Writer::write_array(const std::string& path, DType dtype, std::span<const std::int64_t> shape,
                             std::span<const std::byte> data) {
  const QuietHdf5 quiet;
  const Context context = impl_->about(path);
  if (segments_of(context).size() > 1) impl_->create_group(group_of(path));
  const auto bytes = bytes_of_array(dtype, shape);
  if (!bytes || *bytes != data.size())
    context.fail(fmt::format("{} bytes are no array of {} {}", data.size(), name_of(dtype), text_of(shape)));
  if (shape.size() > H5S_MAX_RANK)
    context.fail(fmt::format("at most {} dimensions are possible", H5S_MAX_RANK));

  Id creation(context.check(H5Pcreate(H5P_DATASET_CREATE), "make a property list"), H5Pclose);
  context.check(H5Pset_obj_track_times(creation, false), "set up the array");
  // Fletcher32 needs chunks. A scalar cannot have any, and an empty array has nothing to check.
  if (!shape.empty() && !data.empty()) {
    std::uint64_t left = chunk_bytes / size_of(dtype);
    std::vector<hsize_t> chunk(shape.size());
    for (std::size_t d = shape.size(); d-- > 0;) {
      chunk[d] = std::clamp<std::uint64_t>(left, 1, static_cast<std::uint64_t>(shape[d]));
      left /= chunk[d];
    }
    context.check(H5Pset_chunk(creation, static_cast<int>(chunk.size()), chunk.data()), "set the chunks");
    context.check(H5Pset_fletcher32(creation), "set the checksum");
  }
  const std::vector<hsize_t> extents(shape.begin(), shape.end());
  const Id space =
      shape.empty()
          ? scalar_space(context)
          : Id(context.check(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
                             "make a data space"),
               H5Sclose);
  const Id type = file_type(context, dtype);
  const Id dataset(context.check(H5Dcreate2(impl_->file, path.c_str(), type, space, Impl::utf8_links(context),
                                            creation, H5P_DEFAULT),
                                 "create the array"),
                   H5Dclose);
  if (!data.empty())
    context.check(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data.data()), "write the array");
  impl_->arrays.push_back({path, dtype, {shape.begin(), shape.end()}, crc32c(data)});
}

void Hdf5Writer::write_attribute(const std::string& group, const std::string& name, const Hdf5Value& value) {
  const QuietHdf5 quiet;
  const Context context = impl_->about(group + "." + name);
  const auto number = [&](DType dtype, const auto& of) {
    impl_->write_attribute(group, name, file_type(context, dtype), &of);
  };
  if (const auto* text = std::get_if<std::string>(&value)) {
    if (text->find('\0') != std::string::npos) context.fail("a text with a NUL in it cannot be stored");
    impl_->write_attribute(group, name, string_type(context, text->size()), text->c_str());
  } else if (const auto* u64 = std::get_if<std::uint64_t>(&value)) {
    number(DType::u64, *u64);
  } else if (const auto* i64 = std::get_if<std::int64_t>(&value)) {
    number(DType::i64, *i64);
  } else {
    number(DType::f64, std::get<double>(value));
  }
  impl_->attributes.push_back({group, name, value});
}

void Hdf5Writer::commit() {
  const QuietHdf5 quiet;
  const Context context = impl_->about("");
  context.check(H5Fflush(impl_->file, H5F_SCOPE_GLOBAL), "flush the file");
  context.check(H5Fclose(impl_->file.release()), "close the file");
  impl_->output.commit([this] { impl_->verify(); });
}

}  // namespace mezzo
