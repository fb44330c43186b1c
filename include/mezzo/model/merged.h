#pragma once
// A whole Hugging Face model with an adapter merged into its weights.
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "mezzo/core/types.h"
#include "mezzo/model/lora.h"
#include "mezzo/model/model_files.h"

namespace mezzo {

/// Writes the model of `files` with the adapter in it to `directory`: W + scaling * B A, summed in double and
/// rounded once to `dtype` (F32, F16 or BF16), every other weight rounded to `dtype` too; names and storage
/// as the original's. config.json's dtype is made to match; tokenizer and generation files are copied.
/// Streams: one weight in memory at a time. InputError when a value does not fit into `dtype`. A directory
/// that holds weights is refused (IoError), or, with `replace`, loses its model's files first; other files in
/// it stay, and the model that is read must not be the one that is replaced.
void export_merged(const ModelFiles& files, const AdapterConfig& config, std::span<const float> values,
                   DType dtype, const std::string& directory, std::uint64_t shard_bytes = default_shard_bytes,
                   bool replace = false);

}  // namespace mezzo
