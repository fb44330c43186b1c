#include "mezzo/train/trainer_state.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "mezzo/io/files.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/io/json_file.h"
#include "mezzo/train/run_header.h"

namespace mezzo {

namespace {

constexpr std::uint64_t max_bytes = 1 << 20;  // Hugging Face's own hold a history

std::string path_in(const std::string& directory) { return directory + "/trainer_state.json"; }

}  // namespace

void write_trainer_state(const std::string& directory, std::uint64_t steps_done,
                         const std::optional<BestNote>& best) {
  nlohmann::ordered_json json = {{"global_step", steps_done}};
  if (best) {
    json["best_global_step"] = steps_done;
    json["best_metric"] = best->value;
    json["metric_for_best_model"] = best->metric;
  }
  write_file_atomically(path_in(directory), json.dump(2) + "\n");
}

std::optional<std::uint64_t> read_trainer_step(const std::string& directory) {
  const std::string path = path_in(directory);
  if (!file_exists(path)) return std::nullopt;
  const nlohmann::json json = read_json_file(path, max_bytes);
  const JsonCursor step = JsonCursor(json, path)["global_step"];
  return static_cast<std::uint64_t>(step.integer(0, static_cast<std::int64_t>(most_steps)));
}

void remove_trainer_state(const std::string& directory) { remove_file(path_in(directory)); }

}  // namespace mezzo
