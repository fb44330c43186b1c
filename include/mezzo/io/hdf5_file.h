#pragma once
// HDF5 files of named arrays and attributes, each with a SHA-256 beside it: what a snapshot is on disk. What
// the names mean is said above (train). docs/file-formats.md describes the layout for other readers.
//
// An object's path is "/GROUP/NAME": the segments are UTF-8 without '/', may hold dots, and are not "."
// alone.
//
// Not for use from several threads at once: HDF5 need not be built for that.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "mezzo/core/types.h"

namespace mezzo {

/// An array of a file: row-major, little-endian. An empty shape is a scalar.
struct Hdf5Array {
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> data;
};

/// What an attribute holds.
using Hdf5Value = std::variant<std::string, std::uint64_t, std::int64_t, double>;

/// Writes a new file. It appears under its name with commit(), verified, or not at all. Throws IoError when
/// HDF5 or the system refuses, or an argument is no valid path, shape or size.
class Hdf5Writer {
 public:
  explicit Hdf5Writer(std::string path);
  Hdf5Writer(const Hdf5Writer&) = delete;
  Hdf5Writer& operator=(const Hdf5Writer&) = delete;
  ~Hdf5Writer();  ///< removes what was not committed

  /// Makes a group, and those above it, unless it exists; write_array() and write_attribute() do so by
  /// themselves.
  void create_group(const std::string& path);
  /// `data` is row-major, size_of(dtype) times the product of `shape` bytes; it need not outlive the call.
  void write_array(const std::string& path, DType dtype, std::span<const std::int64_t> shape,
                   std::span<const std::byte> data);
  /// One value that belongs to a group; texts are UTF-8 without NUL.
  void write_attribute(const std::string& group, const std::string& name, const Hdf5Value& value);

  /// Flush, close, fsync; reopen, read everything back and compare; sidecar; rename; fsync of the folder.
  void commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Reads a file that Hdf5Writer made. Throws InputError that names the file and the object for whatever is
/// missing or is not as it has to be.
class Hdf5Reader {
 public:
  /// Checks the SHA-256 beside the file before HDF5 sees a byte of it.
  explicit Hdf5Reader(const std::string& path);
  Hdf5Reader(Hdf5Reader&&) noexcept;
  Hdf5Reader& operator=(Hdf5Reader&&) noexcept;
  ~Hdf5Reader();

  bool has_group(const std::string& path) const;
  /// Names of the arrays in a group, in bytewise order. Anything else in it is an error.
  std::vector<std::string> array_names(const std::string& group) const;
  Hdf5Array read_array(const std::string& path) const;
  /// Into memory of the caller, who knows what has to be there: `target` holds exactly the array's bytes.
  void read_array(const std::string& path, DType dtype, std::span<const std::int64_t> shape,
                  std::span<std::byte> target) const;

  bool has_attribute(const std::string& group, const std::string& name) const;
  std::string read_string(const std::string& group, const std::string& name) const;
  std::uint64_t read_u64(const std::string& group, const std::string& name) const;
  std::int64_t read_i64(const std::string& group, const std::string& name) const;
  double read_f64(const std::string& group, const std::string& name) const;

 private:
  friend class Hdf5Writer;  // verifies a file that has no sidecar yet
  struct Impl;
  explicit Hdf5Reader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mezzo
