#include "mezzo/io/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/io/convert.h"
#include "mezzo/io/files.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;

constexpr const char* model_name = "model.safetensors";
constexpr const char* index_name = "model.safetensors.index.json";
constexpr std::string_view index_suffix = ".index.json";
constexpr std::string_view metadata_key = "__metadata__";
constexpr std::size_t length_bytes = 8;  // of the field in front of the header

/// The format's element types in the order of the reference implementation: by rising alignment. The writer
/// sorts by this order.
struct ElementType {
  std::string_view name;
  std::uint64_t bits;
  std::optional<DType> dtype;  ///< when Mezzo reads it
};
constexpr ElementType element_types[] = {
    {"BOOL", 8, {}},         {"F4", 4, {}},           {"F6_E2M3", 6, {}},        {"F6_E3M2", 6, {}},
    {"U8", 8, {}},           {"I8", 8, {}},           {"F8_E5M2", 8, {}},        {"F8_E4M3", 8, {}},
    {"F8_E8M0", 8, {}},      {"F8_E4M3FNUZ", 8, {}},  {"F8_E5M2FNUZ", 8, {}},    {"I16", 16, {}},
    {"U16", 16, {}},         {"F16", 16, DType::f16}, {"BF16", 16, DType::bf16}, {"I32", 32, DType::i32},
    {"U32", 32, {}},         {"F32", 32, DType::f32}, {"C64", 64, {}},           {"F64", 64, DType::f64},
    {"I64", 64, DType::i64}, {"U64", 64, DType::u64},
};

std::size_t order_of(DType dtype) {
  const auto* type = std::ranges::find(element_types, std::optional(dtype), &ElementType::dtype);
  return static_cast<std::size_t>(type - element_types);
}

std::string join(const std::string& directory, std::string_view name) {
  return (std::filesystem::path(directory) / name).string();
}

std::uint64_t little_endian(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  return value;
}

// ---- the header ---------------------------------------------------------------------------------------

/// What a header says of one tensor.
struct HeaderEntry {
  std::string name;
  const ElementType* type = nullptr;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

/// The members of a tensor's header entry, checked one by one; `where` is "FILE: tensor NAME".
const Json& member(const Json& entry, const char* key, const std::string& where) {
  const auto found = entry.find(key);
  if (found == entry.end()) throw InputError("{}: \"{}\" is missing", where, key);
  return *found;
}

const ElementType& parse_type(const Json& value, const std::string& where) {
  if (!value.is_string()) throw InputError("{}: dtype must be a string, found {}", where, value.type_name());
  const auto& name = value.get_ref<const std::string&>();
  const auto* type = std::ranges::find(element_types, std::string_view(name), &ElementType::name);
  if (type == std::end(element_types)) throw InputError("{}: the dtype {} is unknown", where, quote(name));
  return *type;
}

std::uint64_t parse_unsigned(const Json& value, const char* what, const std::string& where) {
  if (!value.is_number_unsigned())
    throw InputError("{}: {} must be a 64-bit integer, not negative; found {}", where, what,
                     value.is_number() ? value.dump() : value.type_name());
  return value.get<std::uint64_t>();
}

std::vector<std::int64_t> parse_shape(const Json& value, const std::string& where) {
  if (!value.is_array()) throw InputError("{}: shape must be an array, found {}", where, value.type_name());
  std::vector<std::int64_t> shape;
  shape.reserve(value.size());
  for (const Json& size : value) {
    const std::uint64_t number = parse_unsigned(size, "a size in shape", where);
    if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      throw InputError("{}: the size {} in shape is too large", where, number);
    shape.push_back(static_cast<std::int64_t>(number));
  }
  return shape;
}

/// The bytes of a tensor of this type and shape.
std::uint64_t byte_size(const ElementType& type, std::span<const std::int64_t> shape,
                        const std::string& where) {
  // Elements are counted in int64 everywhere else; bits may need one word more.
  std::int64_t elements = 1;
  for (const std::int64_t size : shape)
    if (__builtin_mul_overflow(elements, size, &elements))
      throw InputError("{}: the shape [{}] overflows 64 bits", where, fmt::join(shape, ", "));
  const unsigned __int128 bits = static_cast<unsigned __int128>(elements) * type.bits;
  if (bits % 8 != 0)
    throw InputError("{}: {} elements of type {} do not fill whole bytes", where, elements, type.name);
  if (bits / 8 > std::numeric_limits<std::uint64_t>::max() / 2)
    throw InputError("{}: the size of shape [{}] overflows 64 bits", where, fmt::join(shape, ", "));
  return static_cast<std::uint64_t>(bits / 8);
}

HeaderEntry parse_entry(const std::string& name, const Json& entry, std::uint64_t data_bytes,
                        const std::string& where) {
  if (!entry.is_object())
    throw InputError("{}: an object with dtype, shape and data_offsets is expected, found {}", where,
                     entry.type_name());
  HeaderEntry tensor;
  tensor.name = name;
  tensor.type = &parse_type(member(entry, "dtype", where), where);
  tensor.shape = parse_shape(member(entry, "shape", where), where);
  const Json& offsets = member(entry, "data_offsets", where);
  if (!offsets.is_array() || offsets.size() != 2)
    throw InputError("{}: data_offsets must be an array of two numbers", where);
  tensor.begin = parse_unsigned(offsets[0], "data_offsets[0]", where);
  tensor.end = parse_unsigned(offsets[1], "data_offsets[1]", where);
  if (tensor.begin > tensor.end)
    throw InputError("{}: data_offsets [{}, {}] run backwards", where, tensor.begin, tensor.end);
  if (tensor.end > data_bytes)
    throw InputError("{}: data_offsets [{}, {}] reach beyond the {} bytes of data: was the file cut off?",
                     where, tensor.begin, tensor.end, data_bytes);
  const std::uint64_t expected = byte_size(*tensor.type, tensor.shape, where);
  if (tensor.end - tensor.begin != expected)
    throw InputError("{}: shape [{}] of {} takes {} bytes, but data_offsets [{}, {}] hold {}", where,
                     fmt::join(tensor.shape, ", "), tensor.type->name, expected, tensor.begin, tensor.end,
                     tensor.end - tensor.begin);
  return tensor;
}

std::map<std::string, std::string> parse_metadata(const Json& value, const std::string& path) {
  if (!value.is_object())
    throw InputError("{}: {} must be an object of strings, found {}", path, metadata_key, value.type_name());
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string())
      throw InputError("{}: {}: {} must be a string, found {}", path, metadata_key, quote(key),
                       text.type_name());
    metadata.emplace(key, text.get_ref<const std::string&>());
  }
  return metadata;
}

/// The JSON text of the header.
std::string_view header_text(std::span<const std::byte> bytes, const std::string& path) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("version https://git-lfs"))
    throw InputError(
        "{}: this is a Git LFS pointer, not the weights themselves: fetch them with git lfs pull", path);
  if (bytes.size() < length_bytes)
    throw InputError("{}: no safetensors file: it has {} bytes, its header's length alone takes {}", path,
                     bytes.size(), length_bytes);
  const std::uint64_t length = little_endian(bytes.first(length_bytes));
  if (length > max_safetensors_header_bytes)
    throw InputError("{}: no safetensors file: its header would have {} bytes, at most {} are allowed", path,
                     length, max_safetensors_header_bytes);
  if (length > bytes.size() - length_bytes)
    throw InputError("{}: the header has {} bytes, but the file ends after {} of them: was it cut off?", path,
                     length, bytes.size() - length_bytes);
  const std::string_view header = text.substr(length_bytes, length);
  if (!header.starts_with('{'))
    throw InputError("{}: no safetensors file: the header does not begin with '{{'", path);
  return header;
}

struct Header {
  std::vector<HeaderEntry> tensors;  ///< by rising offset
  std::map<std::string, std::string> metadata;
  std::span<const std::byte> data;  ///< what the offsets count in
};

Header parse_header(const MappedFile& file) {
  const std::string& path = file.path();
  const std::string_view text = header_text(file.bytes(), path);
  Header header;
  header.data = file.bytes().subspan(length_bytes + text.size());
  const Json json = parse_json(text, path + " (header)");
  for (const auto& [name, value] : json.items()) {
    if (name == metadata_key) header.metadata = parse_metadata(value, path);
    else
      header.tensors.push_back(
          parse_entry(name, value, header.data.size(), fmt::format("{}: tensor {}", path, quote(name))));
  }
  std::ranges::sort(header.tensors, {},
                    [](const HeaderEntry& tensor) { return std::tie(tensor.begin, tensor.end); });

  const HeaderEntry* previous = nullptr;
  std::uint64_t covered = 0;
  for (const HeaderEntry& tensor : header.tensors) {
    if (tensor.begin < covered)
      throw InputError("{}: tensor {}: data_offsets [{}, {}] overlap those of {}, [{}, {}]", path,
                       quote(tensor.name), tensor.begin, tensor.end, quote(previous->name), previous->begin,
                       previous->end);
    if (tensor.begin > covered)
      throw InputError(
          "{}: tensor {}: data_offsets [{}, {}] leave a hole: bytes {} to {} belong to no tensor", path,
          quote(tensor.name), tensor.begin, tensor.end, covered, tensor.begin);
    covered = tensor.end;
    previous = &tensor;
  }
  if (covered != header.data.size())
    throw InputError("{}: the tensors take {} bytes, but the file holds {}", path, covered,
                     header.data.size());
  return header;
}

// ---- finding the files --------------------------------------------------------------------------------

/// weight_map of an index: tensor -> shard's file name.
std::map<std::string, std::string> read_weight_map(const std::string& path) {
  const Json index = read_json_file(path, max_safetensors_header_bytes);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (map == index.end() || !map->is_object())
    throw InputError("{}: an object with the member \"weight_map\", itself an object, is expected", path);
  std::map<std::string, std::string> weight_map;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string())
      throw InputError("{}: weight_map: tensor {}: a file name is expected, found {}", path, quote(tensor),
                       file.type_name());
    const auto& name = file.get_ref<const std::string&>();
    if (name.empty() || name == "." || name == ".." ||
        name.find_first_of(std::string_view("/\\\0", 3)) != name.npos)
      throw InputError("{}: weight_map: tensor {}: {} is no plain file name of the index's own folder", path,
                       quote(tensor), quote(name));
    weight_map.emplace(tensor, name);
  }
  return weight_map;
}

/// The file to open for a model's folder.
std::string find_weights(const std::string& directory) {
  const std::string model = join(directory, model_name);
  const std::string index = join(directory, index_name);
  if (file_exists(model)) {
    if (!file_exists(index)) return model;
    // transformers reads the one file and never looks at the index: a leftover of either kind is another
    // model.
    for (const auto& [tensor, shard] : read_weight_map(index)) {
      if (shard == model_name) continue;
      throw InputError(
          "{}: {} and {} are both there, and the index places tensor {} in {}; expected one of them",
          directory, model_name, index_name, quote(tensor), quote(shard));
    }
    return model;
  }
  if (file_exists(index)) return index;
  std::string hint;
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"})
    if (file_exists(join(directory, name)))
      hint = fmt::format(
          "; {} is there, but only safetensors are read: save the model again with transformers "
          "(save_pretrained)",
          name);
  if (file_exists(join(directory, "adapter_model.safetensors")))
    hint += "; adapter_model.safetensors is there: this is an adapter, a whole model is expected";
  throw InputError("{}: neither {} nor {} is there{}", directory, model_name, index_name, hint);
}

}  // namespace

// ---- TensorInfo and conversion ------------------------------------------------------------------------

std::int64_t TensorInfo::elements() const {
  std::int64_t product = 1;
  for (const std::int64_t size : shape) product *= size;
  return product;
}

std::int64_t TensorInfo::row_elements() const {
  // By division: with a first size of 0 the product of the others may exceed 64 bits.
  if (shape.empty()) return 1;
  return shape[0] == 0 ? 0 : elements() / shape[0];
}

void to_float(const TensorInfo& tensor, std::span<float> out) {
  to_float(tensor, 0, tensor.shape.empty() ? 1 : tensor.shape[0], out);
}

void to_float(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows, std::span<float> out) {
  if (!is_float(tensor.dtype))
    throw InputError("{}: tensor {}: the dtype is {}; F32, F16, BF16 or F64 is expected", tensor.file,
                     quote(tensor.name), name_of(tensor.dtype));
  const std::int64_t all_rows = tensor.shape.empty() ? 1 : tensor.shape[0];
  const std::int64_t row = tensor.row_elements();
  if (first_row < 0 || rows < 0 || first_row > all_rows - rows ||
      out.size() != static_cast<std::size_t>(rows * row))
    throw Error("{}: tensor {}: rows {} to {} of {}, {} elements each, do not fit a buffer of {}",
                tensor.file, quote(tensor.name), first_row, first_row + rows, all_rows, row, out.size());
  to_float(tensor.dtype, tensor.data + static_cast<std::size_t>(first_row * row) * size_of(tensor.dtype),
           out);
}

// ---- Safetensors --------------------------------------------------------------------------------------

Safetensors Safetensors::open(const std::string& path) {
  Safetensors weights;
  weights.path_ = path;
  std::error_code unreadable;  // is said when the file is opened
  const std::string file = std::filesystem::is_directory(path, unreadable) ? find_weights(path) : path;
  if (file.ends_with(index_suffix)) weights.add_shards(file);
  else weights.add_file(file);
  return weights;
}

void Safetensors::add_file(const std::string& path) {
  const MappedFile& file = files_.emplace_back(path);
  Header header = parse_header(file);
  for (HeaderEntry& entry : header.tensors) {
    Stored stored;
    stored.info = {.name = entry.name,
                   .dtype = entry.type->dtype.value_or(DType::f32),
                   .shape = std::move(entry.shape),
                   .data = header.data.data() + entry.begin,
                   .bytes = entry.end - entry.begin,
                   .file = path};
    stored.type = entry.type->name;
    stored.readable = entry.type->dtype.has_value();
    tensors_.emplace(std::move(entry.name), std::move(stored));
  }
  metadata_.merge(header.metadata);
}

void Safetensors::add_shards(const std::string& index_path) {
  const std::string directory = parent_directory(index_path);
  const std::map<std::string, std::string> weight_map = read_weight_map(index_path);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
  for (const std::string& shard : shards) {
    const std::string path = join(directory, shard);
    if (!file_exists(path)) throw InputError("{}: the shard {} is missing", index_path, quote(shard));
    Safetensors one;
    one.add_file(path);
    for (const auto& [name, stored] : one.tensors_) {
      const auto placed = weight_map.find(name);
      if (placed == weight_map.end())
        throw InputError("{}: tensor {} is not in {}", path, quote(name), index_path);
      if (placed->second != shard)
        throw InputError("{}: tensor {} stands here, but {} places it in {}", path, quote(name), index_path,
                         quote(placed->second));
    }
    files_.push_back(std::move(one.files_.front()));
    tensors_.merge(one.tensors_);
    metadata_.merge(one.metadata_);
  }
  for (const auto& [tensor, shard] : weight_map)
    if (!contains(tensor))
      throw InputError("{}: tensor {} is missing, though {} places it here", join(directory, shard),
                       quote(tensor), index_path);
}

const TensorInfo* Safetensors::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return nullptr;
  const Stored& stored = found->second;
  if (!stored.readable)
    throw InputError("{}: tensor {}: the dtype {} is not supported", stored.info.file, quote(name),
                     stored.type);
  return &stored.info;
}

const TensorInfo& Safetensors::at(std::string_view name) const {
  const TensorInfo* const tensor = find(name);
  if (tensor == nullptr) throw InputError("{}: tensor {} is missing", path_, quote(name));
  return *tensor;
}

std::vector<std::string> Safetensors::names() const {
  std::vector<std::string> names;
  names.reserve(tensors_.size());
  for (const auto& [name, stored] : tensors_) names.push_back(name);
  return names;
}

std::vector<std::string> Safetensors::files() const {
  std::vector<std::string> paths;
  for (const MappedFile& file : files_) paths.push_back(file.path());
  return paths;
}

void Safetensors::prefetch(const TensorInfo& tensor) const {
  file_of(tensor).prefetch({tensor.data, tensor.bytes});
}

void Safetensors::release(const TensorInfo& tensor) const {
  file_of(tensor).release({tensor.data, tensor.bytes});
}

const MappedFile& Safetensors::file_of(const TensorInfo& tensor) const {
  for (const MappedFile& file : files_)
    if (file.contains({tensor.data, tensor.bytes})) return file;
  throw Error("{}: tensor {} of {} is not one of these weights", path_, quote(tensor.name), tensor.file);
}

// ---- writing ------------------------------------------------------------------------------------------

namespace {

std::uint64_t byte_size(const TensorSource& tensor, const std::string& where) {
  for (const std::int64_t size : tensor.shape)
    if (size < 0) throw Error("{}: a size of [{}] is negative", where, fmt::join(tensor.shape, ", "));
  return byte_size(element_types[order_of(tensor.dtype)], tensor.shape, where);
}

std::string where(const std::string& path, const TensorSource& tensor) {
  return fmt::format("{}: tensor {}", path, quote(tensor.name));
}

/// `text` as a JSON string. Throws Error when it is not UTF-8.
std::string json_string(const std::string& text, const std::string& path) {
  try {
    return Json(text).dump();
  } catch (const Json::type_error&) {  // the library's way to say so
    throw Error("{}: the name {} is not UTF-8", path, quote(text));
  }
}

/// The header for tensors that stand in this order, with its length in front, padded so that the data start
/// at a multiple of 8.
std::string make_header(const std::string& path, std::span<const TensorSource* const> tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::vector<std::string> members;
  if (!metadata.empty()) {
    std::vector<std::string> texts;
    for (const auto& [key, text] : metadata)
      texts.push_back(json_string(key, path) + ":" + json_string(text, path));
    members.push_back(fmt::format("\"{}\":{{{}}}", metadata_key, fmt::join(texts, ",")));
  }
  std::uint64_t offset = 0;
  for (const TensorSource* tensor : tensors) {
    const std::uint64_t end = offset + byte_size(*tensor, where(path, *tensor));
    members.push_back(fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                                  json_string(tensor->name, path), name_of(tensor->dtype),
                                  fmt::join(tensor->shape, ","), offset, end));
    offset = end;
  }
  std::string json = fmt::format("{{{}}}", fmt::join(members, ","));
  json.resize((json.size() + 7) / 8 * 8, ' ');
  if (json.size() > max_safetensors_header_bytes)
    throw Error("{}: the header would have {} bytes, at most {} are allowed", path, json.size(),
                max_safetensors_header_bytes);
  std::string length(length_bytes, '\0');
  for (std::size_t i = 0; i < length_bytes; ++i) length[i] = static_cast<char>(json.size() >> (8 * i));
  return length + json;
}

void write_file(const std::string& path, std::span<const TensorSource* const> tensors,
                const std::map<std::string, std::string>& metadata) {
  std::vector<const TensorSource*> ordered(tensors.begin(), tensors.end());
  std::ranges::sort(ordered, [](const TensorSource* a, const TensorSource* b) {
    return std::pair(order_of(b->dtype), std::string_view(a->name)) <
           std::pair(order_of(a->dtype), std::string_view(b->name));
  });
  AtomicFile file(path);
  file.write(make_header(path, ordered, metadata));
  for (const TensorSource* tensor : ordered) {
    const std::uint64_t expected = byte_size(*tensor, where(path, *tensor));
    std::uint64_t written = 0;
    tensor->produce([&](std::span<const std::byte> piece) {
      written += piece.size();
      if (written <= expected) file.write(piece);
    });
    if (written != expected)
      throw Error("{}: {} bytes were produced, {} are expected", where(path, *tensor), written, expected);
  }
  file.commit();
}

/// model-00001-of-00004.safetensors
bool is_shard(std::string_view name) {
  constexpr std::string_view form = "model-#####-of-#####.safetensors";
  return std::ranges::equal(name, form, [](char found, char expected) {
    return expected == '#' ? found >= '0' && found <= '9' : found == expected;
  });
}

/// Names are the tensors' identity: each once, and none that the format keeps for itself.
void check_names(const std::string& path, std::span<const TensorSource> tensors) {
  std::set<std::string_view> seen;
  for (const TensorSource& tensor : tensors) {
    if (tensor.name == metadata_key) throw Error("{}: no tensor may be called {}", path, metadata_key);
    if (!seen.insert(tensor.name).second)
      throw Error("{} stands twice in one checkpoint", where(path, tensor));
  }
}

}  // namespace

TensorSource float_source(std::string name, std::vector<std::int64_t> shape, std::span<const float> values,
                          DType dtype) {
  const auto produce = [values, dtype](const ByteSink& sink) {
    std::vector<std::byte> buffer(std::size_t{256} << 10);  // too much for a small stack (ulimit -s)
    const std::size_t step = buffer.size() / size_of(dtype);
    for (std::size_t done = 0; done < values.size(); done += step) {
      const auto part = values.subspan(done, std::min(step, values.size() - done));
      from_float(part, dtype, buffer.data());
      sink(std::span(buffer).first(part.size() * size_of(dtype)));
    }
  };
  return {.name = std::move(name), .dtype = dtype, .shape = std::move(shape), .produce = produce};
}

void write_safetensors(const std::string& path, std::span<const TensorSource> tensors,
                       const std::map<std::string, std::string>& metadata) {
  check_names(path, tensors);
  std::vector<const TensorSource*> all;
  for (const TensorSource& tensor : tensors) all.push_back(&tensor);
  write_file(path, all, metadata);
}

std::vector<std::string> write_model_safetensors(const std::string& directory,
                                                 std::span<const TensorSource> tensors,
                                                 const std::map<std::string, std::string>& metadata,
                                                 std::uint64_t max_shard_bytes) {
  check_names(directory, tensors);
  for (const char* name : {model_name, index_name})
    if (file_exists(join(directory, name)))
      throw IoError("{}: cannot write the weights: {} is there already", directory, name);

  std::vector<std::vector<const TensorSource*>> shards(1);
  std::uint64_t total = 0, shard_bytes = 0;
  for (const TensorSource& tensor : tensors) {
    const std::uint64_t bytes = byte_size(tensor, where(directory, tensor));
    if (!shards.back().empty() && shard_bytes + bytes > max_shard_bytes) {
      shards.emplace_back();
      shard_bytes = 0;
    }
    shards.back().push_back(&tensor);
    shard_bytes += bytes;
    total += bytes;
  }
  if (shards.size() == 1) {
    write_file(join(directory, model_name), shards.front(), metadata);
    return {model_name};
  }

  std::vector<std::string> files;
  Json weight_map = Json::object();
  for (std::size_t i = 0; i < shards.size(); ++i) {
    files.push_back(fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size()));
    write_file(join(directory, files.back()), shards[i], metadata);
    for (const TensorSource* tensor : shards[i]) weight_map[tensor->name] = files.back();
  }
  // The index is written last: without it an interrupted export is no model.
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}};
  write_file_atomically(join(directory, index_name), index.dump(2) + "\n");
  files.emplace_back(index_name);
  return files;
}

void remove_model_safetensors(const std::string& directory) {
  std::error_code error;
  std::vector<std::string> names;
  for (auto entry = std::filesystem::directory_iterator(directory, error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) throw io_error("list the folder", directory, error.value());
  for (const std::string& name : names) {
    if (name == model_name || name == index_name || is_shard(name)) remove_file(join(directory, name));
  }
}

}  // namespace mezzo
