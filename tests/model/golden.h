#pragma once
#include "mezzo/backend/devices.h"
#include "mezzo/model/decoder.h"
#include "mezzo/model/lora.h"
#include "mezzo/model/model_files.h"
#include "model_test.h"

namespace mezzo::testing {

/// A golden model with its adapter on a backend.
class Golden {
 public:
  Golden(std::unique_ptr<Backend> on, const std::string& model)
      : backend(std::move(on)),
        directory(model_directory(model)),
        expected(Safetensors::open(directory + "/expected.safetensors")),
        files(directory),
        adapter(read_adapter(directory + "/adapter", files.description)),
        trainables(make_trainables(*backend, adapter.specs, adapter.values)),
        decoder(*backend, files.description,
                lora_perturbations(files.description, adapter.config, trainables)),
        noise(expected.metadata().at("noise") == "gaussian" ? NoiseKind::gaussian : NoiseKind::rademacher) {
    decoder.load(files, {});
    const auto seeds = integers<std::uint64_t>(expected, "seeds");
    const auto directions = integers<std::uint32_t>(expected, "directions");
    const std::vector<float> epsilons = floats(expected, "epsilons");
    for (std::size_t p = 0; p < seeds.size(); ++p) {
      probes.push_back({.seed = seeds[p], .direction = directions[p], .epsilon = epsilons[p]});
    }
  }

  void begin(const PackedBatch& packed, std::int64_t most_probes) {
    decoder.upload(packed, batch);
    decoder.reserve(batch.shape, most_probes);
    decoder.begin(batch);
  }

  /// log-probabilities of a group, [P][Q].
  std::vector<float> evaluate(std::span<const Probe> group) {
    ProbeTable table;
    backend->upload(group, noise, table);
    const std::int64_t targets = batch.shape.targets;
    std::vector<float> values(group.size() * static_cast<std::size_t>(targets));
    const Buffer buffer = backend->allocate(values.size() * sizeof(float));
    View out = dense(buffer.data(), DType::f32, 1, targets);
    out.probe_stride = targets;
    decoder.evaluate(table, out);
    backend->read(values, out, table.count());
    return values;
  }

  std::unique_ptr<Backend> backend;
  std::string directory;
  Safetensors expected;
  ModelFiles files;
  Adapter adapter;
  Trainables trainables;
  Decoder decoder;
  NoiseKind noise;
  std::vector<Probe> probes;
  DeviceBatch batch;
};

/// Logits of the model alone in the rows that the batch reads, [R][V].
inline std::vector<float> base_logits(Backend& backend, const std::string& directory,
                                      const PackedBatch& packed) {
  const ModelFiles files(directory);
  Decoder decoder(backend, files.description, Perturbations());
  decoder.load(files, {});
  DeviceBatch batch;
  decoder.upload(packed, batch);
  decoder.reserve(batch.shape, 1);
  decoder.begin(batch);
  ProbeTable table;
  const Probe unperturbed{};
  backend.upload({&unperturbed, 1}, NoiseKind::gaussian, table);
  const std::int64_t vocabulary = files.description.vocabulary;
  const Buffer buffer =
      backend.allocate(static_cast<std::size_t>(batch.shape.loss_rows * vocabulary) * sizeof(float));
  const View logits = dense(buffer.data(), DType::f32, batch.shape.loss_rows, vocabulary);
  decoder.logits(table, logits);
  std::vector<float> values(static_cast<std::size_t>(batch.shape.loss_rows * vocabulary));
  backend.read(values, logits, 1);
  return values;
}

}  // namespace mezzo::testing
