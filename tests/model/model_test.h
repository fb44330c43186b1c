#pragma once
// What the tests of the model layer share: the golden models, temporary copies of them, packed batches.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "mezzo/core/batch.h"
#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"
#include "mezzo/io/safetensors.h"
#include "scratch.h"

namespace mezzo::testing {

inline const std::vector<std::string> golden_models{"llama",
                                                    "llama_grouped",
                                                    "llama_tied",
                                                    "llama_linear",
                                                    "llama_dynamic",
                                                    "llama_yarn",
                                                    "llama_longrope",
                                                    "llama_longrope_long",
                                                    "gpt2",
                                                    "gptj",
                                                    "gpt_neox",
                                                    "gpt_neox_sequential",
                                                    "mistral",
                                                    "mixtral",
                                                    "opt",
                                                    "opt_plain",
                                                    "opt_350m",
                                                    "opt_norm_after",
                                                    "opt_projected",
                                                    "phi3",
                                                    "phi3_longrope",
                                                    "gemma2",
                                                    "gemma3",
                                                    "gemma3_old",
                                                    "qwen2",
                                                    "qwen2_window",
                                                    "qwen3",
                                                    "qwen3_moe",
                                                    "qwen3_moe_renormalised"};

inline std::string model_directory(const std::string& name) {
  return std::string(MEZZO_TEST_DATA) + "/models/" + name;
}

/// A directory that goes with its test.
class TemporaryDirectory : public test::ScratchFolder {
 public:
  /// A copy of a golden model in it.
  std::string copy(const std::string& model) const {
    std::string target = *this / model;
    std::filesystem::copy(model_directory(model), target, std::filesystem::copy_options::recursive);
    return target;
  }
};

inline void write_text(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

/// Changes a JSON file in place.
template <typename Change>
void change_json(const std::string& path, Change&& change) {
  nlohmann::json json = read_json_file(path);
  change(json);
  write_text(path, json.dump(2));
}

/// The sentence of the error of type E that `act` throws; a failure when it does not.
template <typename E, typename Act>
std::string error_of(Act&& act) {
  try {
    act();
  } catch (const E& error) {
    return error.what();
  }
  ADD_FAILURE() << "no such error was thrown";
  return "";
}

/// Expects an error of that type whose sentence has all of these words.
template <typename E, typename Act>
void expect_error(Act&& act, std::initializer_list<std::string> words) {
  const std::string message = error_of<E>(act);
  for (const std::string& word : words)
    EXPECT_NE(message.find(word), std::string::npos) << message << "\nlacks " << word;
}

template <typename Act>
void expect_input_error(Act&& act, std::initializer_list<std::string> words) {
  expect_error<InputError>(act, words);
}

/// A tensor of a file as values.
inline std::vector<float> floats(const Safetensors& file, const std::string& name) {
  const TensorInfo& tensor = file.at(name);
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  to_float(tensor, values);
  return values;
}
template <typename T>
std::vector<T> integers(const Safetensors& file, const std::string& name) {
  const TensorInfo& tensor = file.at(name);
  std::vector<T> values(static_cast<std::size_t>(tensor.elements()));
  std::memcpy(values.data(), tensor.data, tensor.bytes);
  return values;
}

/// Sequences of the golden file, packed. Every row whose index `keep` accepts and that has a successor is
/// read and asked for it; with `every_row` all rows are read and nothing is asked.
template <typename Keep>
PackedBatch golden_batch(const Safetensors& expected, bool every_row, Keep&& keep) {
  PackedBatch batch;
  batch.tokens = integers<std::int32_t>(expected, "tokens");
  batch.offsets = {0};
  for (const std::int32_t length : integers<std::int32_t>(expected, "lengths")) {
    for (std::int32_t i = 0; i < length; ++i) {
      const std::int32_t row = batch.offsets.back() + i;
      batch.positions.push_back(i);
      if (!every_row && (i + 1 == length || !keep(row))) continue;
      batch.loss_rows.push_back(row);
      if (every_row) continue;
      batch.target_rows.push_back(static_cast<std::int32_t>(batch.loss_rows.size()) - 1);
      batch.target_tokens.push_back(batch.tokens[static_cast<std::size_t>(row) + 1]);
    }
    batch.offsets.push_back(batch.offsets.back() + length);
  }
  return batch;
}

}  // namespace mezzo::testing
