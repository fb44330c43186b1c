#pragma once
// What several verbs share.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "mezzo/core/log.h"
#include "mezzo/train/best_step.h"
#include "mezzo/train/inputs.h"
#include "mezzo/train/loaded_model.h"
#include "mezzo/train/replay.h"

namespace mezzo {

/// An adapter's numbers and what they belong to, from wherever they lie.
struct AdapterSource {
  std::string kind;  ///< "adapter", "snapshot" or "run"
  std::shared_ptr<const ParameterSpace> space;
  std::string base_model;
  RunState state;
  std::optional<RunHeader> run;       ///< of a snapshot or a run
  std::optional<std::uint64_t> step;  ///< that the state is of; an adapter may name none
  std::optional<BestStep> best = {};  ///< of a run whose result is its best step

  static AdapterSource from_adapter(const std::string& directory);
  /// The same, checked against the model that it is for.
  static AdapterSource from_adapter(const std::string& directory, const Description& description);
  static AdapterSource from_snapshot(const std::string& file);
  /// Which step of a run: its newest, or the one that its adapter/ is of when it ends there (the best one, or
  /// the newest).
  enum class OfRun { newest, result };
  /// The nearest snapshot, then the trajectory's records. `log` is told of bad snapshots.
  static AdapterSource from_run(const std::string& directory, OfRun which, Logger& log);
  /// Whichever of these `path` is; none when it is none of them.
  static std::optional<AdapterSource> find(const std::string& path, OfRun which, Logger& log);
};

/// Writes a text for people to standard output, its lines as printable() makes them.
void print_text(std::string_view text);
/// JSON as one line of ASCII, so that no terminal obeys what is in it. Of bytes that are no UTF-8, as paths
/// may have, each is U+FFFD.
std::string json_text(const nlohmann::ordered_json& json);

bool is_run(const std::string& path);  ///< a folder with a trajectory

/// For unsigned options: digits alone, where CLI11 takes -1 for 2^64 - 1.
CLI::Validator whole_number();
/// For options in floating point: neither nan nor inf, which pass CLI11's ranges or are quoted as its limits.
CLI::Validator finite_number();

/// Gives the results written so far to standard output. IoError when it does not take them: a full disk, or a
/// pipe that nobody reads any more.
void flush_standard_output();

/// UsageError when `path` exists and is not empty, unless `overwrite`.
void check_target(const std::string& path, bool overwrite);
/// UsageError where a merged model was to replace the base model that it is made of.
void check_other_than_base(const std::string& target, const std::string& base);

/// Device options of verbs that take no config.
struct DeviceOptions {
  std::string device = "auto";
  int threads = 0;  ///< 0: auto
  RuntimeConfig runtime() const;
};
void add_device_options(CLI::App& verb, DeviceOptions& options);

/// Of an option or argument that takes a model or an adapter: a name on the Hub becomes the folder that its
/// cache has for it (mezzo/core/hub_cache.h). UsageError when there is none.
CLI::Validator model_path();

/// A warning when what was made on one base model is about to be used on another.
void warn_of_another_base(const AdapterSource& adapter, const ModelFiles& files, Logger& log);

/// A model on a device of its own.
struct ModelOnDevice {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<LoadedModel> model;
};
/// Loads `files`, with `adapter` unless null. InputError when the adapter is not one of the model.
ModelOnDevice load_model(const ModelFiles& files, const AdapterSource* adapter, const Placement& placement);

}  // namespace mezzo
