#include "mezzo/train/run_header.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

constexpr std::int64_t newest_version = 2;
// As of the config's: products of two counts fit 64 bits.
constexpr std::int64_t most_of_a_count = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t most_elements = std::int64_t{1} << 40;  // of all trainables

nlohmann::ordered_json with_kind(std::string_view kind, const nlohmann::ordered_json& constants) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object({{"kind", kind}});
  json.update(constants);
  return json;
}

/// A list of [key, value], texts, each key once.
std::vector<IdentityEntry> read_entries(const JsonCursor& list) {
  std::vector<IdentityEntry> entries;
  std::set<std::string> keys;
  for (const JsonCursor& entry : list.elements()) {
    const std::vector<JsonCursor> pair = entry.elements();
    if (pair.size() != 2) entry.fail("a list of a key and its value");
    entries.push_back({pair[0].text(), pair[1].text()});
    if (!keys.insert(entries.back().key).second) pair[0].fail("each key once");
  }
  return entries;
}

std::vector<TrainableSpec> read_trainables(const JsonCursor& list) {
  std::vector<TrainableSpec> specs;
  std::int64_t elements = 0;
  for (const JsonCursor& entry : list.elements()) {
    const std::vector<JsonCursor> parts = entry.elements();
    if (parts.size() != 3) entry.fail("a list of a name, rows and columns");
    TrainableSpec spec{parts[0].text(), parts[1].integer(1, most_of_a_count),
                       parts[2].integer(1, most_of_a_count)};
    if (spec.name.empty() || spec.name.find('/') != spec.name.npos) parts[0].fail("a name without /");
    if (!specs.empty() && spec.name <= specs.back().name) {
      parts[0].fail(fmt::format("a name behind {} in bytewise order", quote(specs.back().name)));
    }
    elements += spec.count();  // at most 2^62 each
    if (elements > most_elements)
      entry.fail(fmt::format("at most {} elements in all trainables", most_elements));
    specs.push_back(std::move(spec));
  }
  if (specs.empty()) list.fail("at least one trainable");
  return specs;
}

NoiseKind read_noise(const JsonCursor& name) {
  for (const NoiseKind kind : {NoiseKind::gaussian, NoiseKind::rademacher}) {
    if (name.text() == name_of(kind)) return kind;
  }
  name.fail("gaussian or rademacher");
}

std::map<std::string, std::string> read_texts(const JsonCursor& object) {
  std::map<std::string, std::string> texts;
  for (const auto& [name, value] : object.members()) texts[name] = value.text();
  return texts;
}

}  // namespace

std::string RunHeader::to_json() const {
  const auto list_of = [](const std::vector<IdentityEntry>& entries) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const IdentityEntry& entry : entries) list.push_back({entry.key, entry.value});
    return list;
  };
  nlohmann::ordered_json json;
  json["version"] = newest_version;
  json["identity"] = list_of(identity);
  json["settings"] = list_of(settings);
  json["base_model"] = {{"path", base_model}, {"hash", base_hash}};
  json["space"] = with_kind(space->kind(), space->constants());
  for (const TrainableSpec& spec : trainables())
    json["trainables"].push_back({spec.name, spec.rows, spec.cols});
  json["optimizer"] = with_kind(optimizer->kind(), optimizer->constants());
  json["seed"] = seed;
  json["directions"] = records.directions;
  json["noise"] = name_of(noise);
  // Records of runs that draw new directions each step are older than this key.
  if (resample_steps > 1) json["resample_steps"] = resample_steps;
  json["probe_losses"] = records.probe_losses;
  // Records of estimators that keep nothing are older than this key.
  if (records.estimator > 0) json["estimator_state"] = records.estimator;
  json["start_step"] = start_step;
  json["start_snapshot"] = start_snapshot;
  json["initial_adapter"] = initial_adapter;
  json["fingerprint"] = fingerprint;
  return json.dump();
}

RunHeader RunHeader::from_json(const std::string& text, const std::string& source) {
  const std::string where = source + ": the run's header";
  const nlohmann::json json = parse_json(text, where);
  const JsonCursor cursor(json, where);
  const std::int64_t version = cursor["version"].integer(1, newest_version);
  RunHeader header;
  header.identity = read_entries(cursor["identity"]);
  const JsonCursor base = cursor["base_model"];
  base.check_keys({"path", "hash"});
  header.base_model = base["path"].text();
  header.base_hash = base["hash"].text();
  std::vector<TrainableSpec> trainables = read_trainables(cursor["trainables"]);
  header.seed = cursor["seed"].unsigned_integer();
  header.records.directions = cursor["directions"].integer(1, most_of_a_count);
  header.noise = read_noise(cursor["noise"]);
  header.start_step =
      static_cast<std::uint64_t>(cursor["start_step"].integer(0, static_cast<std::int64_t>(most_steps)));
  header.initial_adapter = cursor["initial_adapter"].boolean();
  header.fingerprint = read_texts(cursor["fingerprint"]);
  if (header.start_step > 0 && header.initial_adapter) {
    cursor["initial_adapter"].fail("false, since start_step says that the run began from a snapshot");
  }
  if (version == 1) {
    // It knew one space and one optimizer, and recorded neither settings nor losses of probes.
    cursor.check_keys({"version", "identity", "base_model", "lora", "trainables", "seed", "directions",
                       "noise", "weight_decay", "start_step", "initial_adapter", "fingerprint"});
    if (header.start_step > 0) header.start_snapshot = "start.h5";
    header.space = recorded_space("lora", cursor["lora"], std::move(trainables));
    const nlohmann::json sgd = nlohmann::json::object({{"weight_decay", cursor["weight_decay"].value()}});
    header.optimizer = recorded_optimizer("sgd", JsonCursor(sgd, where));
    return header;
  }
  cursor.check_keys({"version", "identity", "settings", "base_model", "space", "trainables", "optimizer",
                     "seed", "directions", "noise", "probe_losses", "estimator_state", "resample_steps",
                     "start_step", "start_snapshot", "initial_adapter", "fingerprint"});
  header.settings = read_entries(cursor["settings"]);
  header.space = recorded_space(cursor["space"]["kind"].text(), cursor["space"], std::move(trainables));
  header.optimizer = recorded_optimizer(cursor["optimizer"]["kind"].text(), cursor["optimizer"]);
  header.records.probe_losses = cursor["probe_losses"].integer(0, most_of_a_count);
  if (const JsonCursor steps = cursor["resample_steps"]; !steps.missing())
    header.resample_steps = steps.integer(2, static_cast<std::int64_t>(most_steps));
  if (const JsonCursor kept = cursor["estimator_state"]; !kept.missing())
    header.records.estimator = kept.integer(1, most_of_a_count);
  const JsonCursor start = cursor["start_snapshot"];
  header.start_snapshot = start.text();
  if (header.start_snapshot.empty() != (header.start_step == 0) ||
      header.start_snapshot.find('/') != std::string::npos) {
    start.fail("the name of a file in the run's folder where start_step is above 0, else an empty text");
  }
  return header;
}

void check_identity(const RunHeader& run, const RunHeader& now, const std::string& folder) {
  const auto refuse = [&](const std::string& key, const std::string& there, const std::string& here) {
    throw UsageError(
        "{}: holds another run: {} is {} there, but {} now; take another train.output_dir, or the run's own "
        "value",
        folder, key, there, here);
  };
  std::map<std::string, std::string> unrecorded;
  for (const IdentityEntry& entry : values_before_records()) unrecorded[entry.key] = entry.value;
  std::map<std::string, std::string> before;
  for (const IdentityEntry& entry : run.identity) before[entry.key] = entry.value;
  for (const IdentityEntry& entry : now.identity) {
    const auto found = before.find(entry.key);
    if (found == before.end()) {
      if (entry.key == tokenizer_key) continue;
      const auto old = unrecorded.find(entry.key);
      const std::string value = old == unrecorded.end() ? "not set" : old->second;
      if (value != entry.value) refuse(entry.key, value, entry.value);
      continue;
    }
    if (found->second != entry.value) refuse(entry.key, found->second, entry.value);
    before.erase(found);
  }
  if (!before.empty()) refuse(before.begin()->first, before.begin()->second, "not set");
}

}  // namespace mezzo
