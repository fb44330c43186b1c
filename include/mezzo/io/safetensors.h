#pragma once
// safetensors, the format of Hugging Face's weights (https://huggingface.co/docs/safetensors):
//
//   8 bytes   N, the header's length, unsigned little-endian
//   N bytes   the header: a JSON object, tensor name -> {"dtype", "shape", "data_offsets": [begin, end)}; the
//   key
//             "__metadata__" holds a map of text to text; spaces may follow as padding
//   the rest  the tensors' elements, row-major little-endian; the offsets count from here
//
// The tensors cover the rest without overlap or hole. A large model is cut into several such files, the
// shards, and model.safetensors.index.json says in its "weight_map" which of them holds which tensor.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzo/core/types.h"
#include "mezzo/io/mapped_file.h"

namespace mezzo {

inline constexpr std::uint64_t max_safetensors_header_bytes = 100'000'000;
inline constexpr std::uint64_t default_shard_bytes = 5'000'000'000;  ///< transformers' former and usual limit

// ---- reading ------------------------------------------------------------------------------------------

/// A view of one tensor in a mapped file.
struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;  ///< [] is a scalar; a size may be 0
  const std::byte* data = nullptr;  ///< into the mapping; the format promises no alignment
  std::size_t bytes = 0;
  std::string file;  ///< the path of the file (the shard) that holds it

  std::int64_t elements() const;      ///< the product of the shape
  std::int64_t row_elements() const;  ///< the product of the shape without its first size; 1 for a scalar
};

/// The weights of a model or an adapter: one safetensors file, or an index and its shards. Owns the mappings;
/// nothing is copied. Opening checks every rule of the format and throws InputError naming file and tensor.
class Safetensors {
 public:
  /// `path` is a safetensors file, an index (*.index.json), or a model's folder. A folder's model.safetensors
  /// is taken before its model.safetensors.index.json, as transformers does.
  static Safetensors open(const std::string& path);

  bool contains(std::string_view name) const { return tensors_.contains(name); }
  /// nullptr when there is no such tensor. Throws InputError when it is of a type that Mezzo does not read
  /// (F8_E4M3, BOOL, ...): such tensors may stand in a file that is never asked for them.
  const TensorInfo* find(std::string_view name) const;
  /// As find(), but a missing tensor is an InputError too.
  const TensorInfo& at(std::string_view name) const;

  std::vector<std::string> names() const;  ///< in bytewise order, those of types not read included
  /// The files' "__metadata__"; of a key in several shards the first shard's value.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  std::vector<std::string> files()
      const;  ///< the files that hold tensors, without the index, in bytewise order

  /// Asks the kernel to start reading a tensor; takes its pages out of the resident set after use (it stays
  /// readable).
  void prefetch(const TensorInfo& tensor) const;
  void release(const TensorInfo& tensor) const;

 private:
  struct Stored {
    TensorInfo info;
    std::string_view type;  ///< as the file spells it
    bool readable = false;  ///< info.dtype says the same as `type`
  };

  Safetensors() = default;
  void add_file(const std::string& path);
  void add_shards(const std::string& index_path);
  const MappedFile& file_of(const TensorInfo& tensor) const;

  std::string path_;  ///< what was opened, for messages
  std::vector<MappedFile> files_;
  std::map<std::string, Stored, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Converts a whole tensor to fp32 (convert.h); out.size() is elements(). Throws InputError naming file and
/// tensor when its type is no float type.
void to_float(const TensorInfo& tensor, std::span<float> out);
/// Converts the rows [first_row, first_row + rows) along the first size; out.size() is rows * row_elements().
void to_float(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows, std::span<float> out);

// ---- writing ------------------------------------------------------------------------------------------

using ByteSink = std::function<void(std::span<const std::byte>)>;

/// A tensor to be written. `produce` is called once, when its place in the file has come, and hands all its
/// bytes to the sink, in order, in pieces of any size: a model need not be in memory in its written form.
struct TensorSource {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::function<void(const ByteSink&)> produce;
};

/// A source over fp32 values that outlive it, written as `dtype` (a float type).
TensorSource float_source(std::string name, std::vector<std::int64_t> shape, std::span<const float> values,
                          DType dtype = DType::f32);

/// Writes one file, atomically (files.h). Tensors stand in the reference writer's order (type by falling
/// alignment, then name), so equal tensors give equal bytes. Throws IoError when the system refuses, Error
/// when a source or a name is wrong.
void write_safetensors(const std::string& path, std::span<const TensorSource> tensors,
                       const std::map<std::string, std::string>& metadata = {});

/// Writes a model's weights into a folder: model.safetensors, or, when they have more than `max_shard_bytes`,
/// model-00001-of-0000N.safetensors ... and, last, model.safetensors.index.json. Shards are filled in the
/// order given; a tensor larger than the limit has one of its own. Returns the names of the files written. A
/// folder that has weights already is refused with IoError before anything is written.
std::vector<std::string> write_model_safetensors(const std::string& directory,
                                                 std::span<const TensorSource> tensors,
                                                 const std::map<std::string, std::string>& metadata = {},
                                                 std::uint64_t max_shard_bytes = default_shard_bytes);

/// Removes from a folder what write_model_safetensors() leaves there, in any number of shards.
void remove_model_safetensors(const std::string& directory);

}  // namespace mezzo
