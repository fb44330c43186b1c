#pragma once
// Completions of the golden models, whose perturbed forward the goldens of transformers and PEFT hold.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mezzo/backend/devices.h"
#include "mezzo/model/lora.h"
#include "mezzo/model/model_files.h"
#include "mezzo/train/generator.h"
#include "mezzo/train/probe_runner.h"

namespace mezzo::test {

/// Texts are their ids, each with a blank behind it.
class NumberTokenizer final : public Tokenizer {
 public:
  std::vector<std::int32_t> encode(std::string_view, bool) const override { return {}; }
  std::vector<std::int32_t> encode_continuation(std::string_view) const override { return {}; }
  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    for (const std::int32_t id : ids) text += std::to_string(id) + " ";
    return text;
  }
  std::string decode_continuation(std::span<const std::int32_t> ids) const override { return decode(ids); }
  std::optional<std::int32_t> start_token() const override { return {}; }
  std::optional<NamedToken> bos_token() const override { return {}; }
  std::optional<NamedToken> eos_token() const override { return {}; }
};

/// A golden model with its adapter, and some prompts for it.
class Model {
 public:
  Model(const std::string& name, const BackendOptions& on)
      : backend(make_backend(on)),
        files(MEZZO_TEST_DATA "/models/" + name),
        adapter(read_adapter(files.directory + "/adapter", files.description)),
        trainables(make_trainables(*backend, adapter.specs, adapter.values)),
        decoder(*backend, files.description,
                lora_perturbations(files.description, adapter.config, trainables)),
        runner(*backend, decoder) {
    decoder.load(files, {});
    for (std::int32_t i = 0; i < 9; ++i) {
      for (std::int32_t t = 0; t <= i * 3 % 7; ++t)
        prompts[static_cast<std::size_t>(i)].push_back((5 * i + 3 * t + 1) % vocabulary());
    }
  }

  std::int32_t vocabulary() const { return static_cast<std::int32_t>(files.description.vocabulary); }
  std::int64_t positions() const { return files.description.max_positions; }

  /// Every prompt `samples` times.
  std::vector<GenerationRequest> requests(std::int64_t samples) const {
    std::vector<GenerationRequest> requests;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      for (std::int64_t sample = 0; sample < samples; ++sample)
        requests.push_back({.prompt = prompts[i],
                            .number = std::ssize(requests),
                            .draw_key = draw_key(3, 0, i, static_cast<std::uint32_t>(sample))});
    }
    return requests;
  }

  std::unique_ptr<Backend> backend;
  ModelFiles files;
  Adapter adapter;
  Trainables trainables;
  Decoder decoder;
  ProbeRunner runner;
  std::array<std::vector<std::int32_t>, 9> prompts;
};

/// Both sides of two directions and the unperturbed model.
inline std::vector<Probe> some_probes() {
  std::vector<Probe> probes;
  for (std::uint32_t k = 0; k < 2; ++k) {
    for (const float sign : {1.0f, -1.0f})
      probes.push_back({.seed = 11 + k, .direction = k, .epsilon = 0.05f * sign});
  }
  probes.push_back({});
  return probes;
}

/// [probe][request] of what run() hands on.
using Completions = std::vector<std::vector<Generated>>;

inline Completions generate(Model& model, std::span<const Probe> probes,
                            std::span<const GenerationRequest> requests, const GenerationRule& rule,
                            std::int64_t all, std::int64_t most_slots) {
  const NumberTokenizer tokenizer;
  const Generator generator(model.runner, tokenizer, rule, model.positions());
  const DecodingRows rows = DecodingRows::of(all, most_slots);
  model.runner.reserve(shape_of(requests, rows, rule, model.positions()), std::ssize(probes));
  Completions completions(probes.size(), std::vector<Generated>(requests.size()));
  std::size_t ended = 0;
  generator.run(probes, NoiseKind::gaussian, requests, rows,
                [&](std::int64_t probe, std::int64_t request, Generated&& written) {
                  ++ended;
                  completions[static_cast<std::size_t>(probe)][static_cast<std::size_t>(request)] =
                      std::move(written);
                });
  EXPECT_EQ(ended, probes.size() * requests.size());
  return completions;
}

/// log p of each new token of a completion, and of the token that is likeliest there, by a whole forward.
struct Scores {
  std::vector<float> written, likeliest;
};
inline Scores whole_forward(Model& model, const Probe& probe, std::span<const std::int32_t> prompt,
                            const std::vector<std::int32_t>& written) {
  PackedBatch packed;
  packed.tokens.assign(prompt.begin(), prompt.end());
  packed.tokens.insert(packed.tokens.end(), written.begin(), written.end());
  packed.tokens.pop_back();
  const auto tokens = static_cast<std::int32_t>(packed.tokens.size());
  packed.offsets = {0, tokens};
  for (std::int32_t t = 0; t < tokens; ++t) packed.positions.push_back(t);
  for (std::size_t i = 0; i < written.size(); ++i) {
    packed.loss_rows.push_back(static_cast<std::int32_t>(prompt.size() - 1 + i));
    for (std::int32_t id = 0; id < model.vocabulary(); ++id) {
      packed.target_rows.push_back(static_cast<std::int32_t>(i));
      packed.target_tokens.push_back(id);
    }
  }
  model.runner.reserve(shape_of(packed), 1);
  model.runner.begin(packed);
  const std::span<const float> all = model.runner.evaluate({&probe, 1}, NoiseKind::gaussian);
  Scores scores;
  for (std::size_t i = 0; i < written.size(); ++i) {
    const auto row = all.subspan(i * static_cast<std::size_t>(model.vocabulary()),
                                 static_cast<std::size_t>(model.vocabulary()));
    scores.written.push_back(row[static_cast<std::size_t>(written[i])]);
    scores.likeliest.push_back(*std::ranges::max_element(row));
  }
  return scores;
}

/// Every token that completions of `probes` have is the likeliest there of a whole forward, within
/// `tolerance` of its log-probability; and the perturbation changes some.
inline void expect_likeliest(Model& model, std::int64_t new_tokens, double tolerance) {
  const std::vector<Probe> probes = some_probes();
  const std::vector<GenerationRequest> requests = model.requests(1);
  const Completions completions = generate(model, probes, requests, {.max_new_tokens = new_tokens}, 9, 64);
  std::size_t different = 0;
  for (std::size_t p = 0; p < probes.size(); ++p) {
    for (std::size_t n = 0; n < requests.size(); ++n) {
      const Generated& written = completions[p][n];
      ASSERT_EQ(std::ssize(written.tokens), new_tokens);
      EXPECT_EQ(written.finish, FinishReason::length);
      different += written.tokens != completions.back()[n].tokens;
      const Scores scores = whole_forward(model, probes[p], requests[n].prompt, written.tokens);
      for (std::size_t i = 0; i < written.tokens.size(); ++i) {
        EXPECT_NEAR(scores.written[i], scores.likeliest[i], tolerance)
            << "probe " << p << " prompt " << n << " token " << i;
      }
    }
  }
  EXPECT_GT(different, 0u);
}

inline void expect_same(const Generated& got, const Generated& want, const std::string& where) {
  EXPECT_EQ(got.tokens, want.tokens) << where;
  EXPECT_EQ(got.text, want.text) << where;
  EXPECT_EQ(got.finish, want.finish) << where;
}

/// Completions in groups of one and three probes, with fewer slots, and as another rank has them. With draws
/// a last bit of a logit would show only now and then: the runs are long and many.
inline void expect_same_in_any_company(Model& model, const Sampling& sampling) {
  const std::vector<Probe> probes = some_probes();
  const std::vector<GenerationRequest> requests = model.requests(8);  // 72: three blocks
  const GenerationRule rule{.max_new_tokens = 20, .sampling = sampling};
  const std::int64_t all = std::ssize(requests);
  const Completions want = generate(model, probes, requests, rule, all, 96);
  for (std::size_t p = 0; p < probes.size(); ++p) {
    const Completions alone = generate(model, {&probes[p], 1}, requests, rule, all, 96);
    for (std::size_t n = 0; n < requests.size(); ++n) expect_same(alone[0][n], want[p][n], "alone");
  }
  const std::vector<Probe> three = {probes[3], probes[0], probes[4]};
  const Completions of_three = generate(model, three, requests, rule, all, 96);
  for (std::size_t n = 0; n < requests.size(); ++n) {
    expect_same(of_three[0][n], want[3][n], "of three");
    expect_same(of_three[1][n], want[0][n], "of three");
  }
  // Sequences take the slots of those that ended, in three waves.
  const Completions refilled = generate(model, probes, requests, rule, all, 32);
  // Another rank's requests: the last ones alone.
  const Completions last = generate(model, probes, std::span(requests).subspan(41), rule, all, 32);
  for (std::size_t p = 0; p < probes.size(); ++p) {
    for (std::size_t n = 0; n < requests.size(); ++n) {
      expect_same(refilled[p][n], want[p][n], "refilled");
      if (n >= 41) expect_same(last[p][n - 41], want[p][n], "another rank");
    }
  }
}

}  // namespace mezzo::test
