#pragma once
// A whole Hugging Face model with what was trained in its weights.
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>

#include "mezzo/core/types.h"
#include "mezzo/model/lora.h"
#include "mezzo/model/model_files.h"

namespace mezzo {

/// Changes the stored rows [first, first + rows) of a weight, `values` [rows, cols].
using WeightChange =
    std::function<void(std::int64_t first, std::int64_t rows, std::int64_t cols, std::span<double> values)>;
/// By the weight's name, as the description has it.
using WeightChanges = std::map<std::string, WeightChange>;

/// Writes the model of `files` with changed weights to `directory`, each weight rounded once to `dtype` (F32,
/// F16 or BF16); names and storage as the original's. The rest as export_merged().
void export_changed(const ModelFiles& files, const WeightChanges& changes, DType dtype,
                    const std::string& directory, std::uint64_t shard_bytes = default_shard_bytes,
                    bool replace = false);

/// What these write into a directory, whole or in part and in any number of shards.
void remove_model(const std::string& directory);

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
