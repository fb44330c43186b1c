#include "mezzo/model/model_files.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/io/files.h"
#include "mezzo/io/json_file.h"
#include "mezzo/io/sha256.h"
#include "mezzo/model/family.h"

namespace mezzo {
namespace {

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

bool has_ignored_suffix(const Description& description, const std::string& name) {
  return std::ranges::any_of(description.names.ignored_suffixes,
                             [&](const std::string& suffix) { return name.ends_with(suffix); });
}

std::string hash_of_files(const std::string& directory, std::vector<std::string> files, int threads) {
  files.push_back(directory + "/config.json");
  std::ranges::sort(files);
  return hash_files(files, threads);
}

}  // namespace

ModelFiles::ModelFiles(const std::string& path)
    : directory(path), description(read_description(path)), tensors(Safetensors::open(path)) {
  // Files of the bare base model, or of a part of it, lack names at the front of the prefix.
  const std::string& prefix = description.names.prefix;
  const std::string first = prefix + description.names.embedding + ".weight";
  for (std::size_t cut = 0; cut <= prefix.size();) {
    if (tensors.contains(first.substr(cut))) {
      left_out_ = cut;
      break;
    }
    const std::size_t dot = prefix.find('.', cut);
    if (dot == prefix.npos) break;
    cut = dot + 1;
  }
  check();
}

std::string ModelFiles::stored_name(const std::string& name) const {
  return name.starts_with(description.names.prefix) ? name.substr(left_out_) : name;
}

const TensorInfo& ModelFiles::weight(const std::string& name) const { return tensors.at(stored_name(name)); }

void ModelFiles::check() const {
  std::set<std::string> expected;
  for (const WeightSpec& spec : weight_specs(description)) {
    const std::string name = stored_name(spec.name);
    expected.insert(name);
    const TensorInfo* const tensor = tensors.find(name);
    if (tensor == nullptr) {
      const std::string near = nearest(name, tensors.names());
      throw InputError("{}: weight {} is missing, expected in the shape {}{}", directory, name,
                       shape_text(spec.shape),
                       near.empty() ? "" : fmt::format("; the nearest name there is {}", quote(near)));
    }
    if (tensor->shape != spec.shape) {
      throw InputError("{}: weight {} has the shape {}, expected {} by config.json", tensor->file, name,
                       shape_text(tensor->shape), shape_text(spec.shape));
    }
    if (tensor->dtype != DType::f32 && tensor->dtype != DType::f16 && tensor->dtype != DType::bf16) {
      throw InputError("{}: weight {} is {}, expected F32, F16 or BF16", tensor->file, name,
                       name_of(tensor->dtype));
    }
  }
  const std::string head = description.names.head + ".weight";
  for (const std::string& name : tensors.names()) {
    if (expected.contains(name) || has_ignored_suffix(description, name)) continue;
    if (description.tied_head && name == head) {
      check_tied(head);
      continue;
    }
    throw InputError(
        "{}: tensor {} belongs to no module of a {} model, expected only the weights that config.json asks "
        "for",
        tensors.at(name).file, quote(name), description.family);
  }
}

void ModelFiles::check_tied(const std::string& head) const {
  const TensorInfo& copy = tensors.at(head);
  const TensorInfo& embedding = weight(description.names.prefix + description.names.embedding + ".weight");
  const bool same = copy.dtype == embedding.dtype && copy.shape == embedding.shape &&
                    std::memcmp(copy.data, embedding.data, copy.bytes) == 0;
  tensors.release(copy);
  tensors.release(embedding);
  if (!same) {
    throw InputError(
        "{}: {} differs from {}, expected the same values since config.json ties them "
        "(tie_word_embeddings)",
        copy.file, head, embedding.name);
  }
}

std::string ModelFiles::hash(int threads) const { return hash_of_files(directory, tensors.files(), threads); }

std::string model_hash(const std::string& directory, int threads) {
  return hash_of_files(directory, Safetensors::open(directory).files(), threads);
}

}  // namespace mezzo
