#pragma once
// A Hugging Face model directory, opened and checked but not yet loaded.
#include <string>

#include "mezzo/io/safetensors.h"
#include "mezzo/model/description.h"
#include "mezzo/model/layers.h"

namespace mezzo {

/// A model's config.json and the headers of its weight files; the weights themselves stay on disk, mapped.
struct ModelFiles {
  /// Reads config.json and the weight files' headers, and checks that they hold every weight of the
  /// description, in its shape, and no other: InputError names the tensor, what was found and what was
  /// expected.
  explicit ModelFiles(const std::string& directory);

  std::string directory;
  Description description;
  Safetensors tensors;

  /// The stored tensor of a weight (a name of weight_specs): files made from the bare base model lack the
  /// prefix.
  const TensorInfo& weight(const std::string& name) const;
  std::string stored_name(const std::string& name) const;

  /// SHA-256 over config.json and the weight files, in bytewise order of their names. Reads everything.
  std::string hash(int threads) const;

 private:
  void check() const;
  void check_tied(const std::string& head) const;

  std::size_t left_out_ = 0;  ///< bytes of the prefix of names that the files do not have
};

/// The same hash, of a directory that is not open.
std::string model_hash(const std::string& directory, int threads);

}  // namespace mezzo
