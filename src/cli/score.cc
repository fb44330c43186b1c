#include <iostream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/data/loss_batch.h"
#include "mezzo/data/task.h"
#include "mezzo/train/evaluator.h"

namespace mezzo {

VerbAction add_score(CLI::App& verb) {
  struct Arguments {
    std::string model, file, adapter;
    DeviceOptions device;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("model", arguments->model, "model folder, or its name on the Hub")
      ->required()
      ->transform(model_path());
  verb.add_option("file", arguments->file, "JSON lines with `prompt` and `completion`")->required();
  verb.add_option("--adapter", arguments->adapter, "PEFT adapter")->transform(model_path());
  add_device_options(verb, arguments->device);
  verb.footer("Example: mezzo score configs/quickstart/llama2m records.jsonl > scores.jsonl");
  return [arguments](VerbContext& context) {
    const Placement placement =
        place_together(arguments->device.runtime(), context.exchange, starting_patience);
    const ModelFiles files(arguments->model);
    const std::unique_ptr<Tokenizer> tokenizer =
        load_tokenizer(arguments->model, files.description.vocabulary);
    TaskConfig config;
    config.type = TaskType::completion;
    config.loss = TaskLoss::language_model;
    config.append_eos = false;
    // Nothing is cut off here: a record that is too long is an error.
    const std::int64_t positions = files.description.max_positions;
    const Task task(config, *tokenizer, std::numeric_limits<std::int64_t>::max());
    const std::vector<Example> records = task.read(arguments->file, DataFormat::automatic);
    for (std::size_t i = 0; i < records.size(); ++i) {
      const std::size_t needed = records[i].prompt.size() + records[i].options[0].size() - 1;
      if (needed > static_cast<std::size_t>(positions)) {
        throw InputError("{}:{}: {} tokens, but the model has {}", arguments->file, i + 1, needed,
                         files.description.positions_text());
      }
    }
    std::optional<AdapterSource> adapter;
    if (!arguments->adapter.empty())
      adapter = AdapterSource::from_adapter(arguments->adapter, files.description);
    const ModelOnDevice loaded = load_model(files, adapter ? &*adapter : nullptr, placement);
    ProbeRunner& runner = loaded.model->runner;
    // One record a forward: a record's numbers do not depend on its neighbours.
    std::vector<PackedBatch> batches;
    BatchShape largest;
    for (const Example& record : records) {
      const Example* one = &record;
      batches.push_back(pack({&one, 1}, TaskLoss::language_model, false).packed);
      largest = largest_of(largest, shape_of(batches.back()));
    }
    runner.reserve(largest, 1);
    for (const PackedBatch& batch : batches) {
      runner.begin(batch);
      const Probe unperturbed;
      const std::span<const float> scores = runner.evaluate({&unperturbed, 1}, NoiseKind::gaussian);
      std::cout << nlohmann::json({{"logprobs", std::vector<float>(scores.begin(), scores.end())}}).dump()
                << '\n';
      flush_standard_output();  // nothing more is computed for a reader who has left
    }
    return ExitCode::done;
  };
}

}  // namespace mezzo
