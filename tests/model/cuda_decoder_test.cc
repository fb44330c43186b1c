// The forward on a CUDA card against transformers and PEFT (tests/goldens/make_model_goldens.py), in fp32 and
// bf16.
#include <cmath>
#include <set>

#include "golden.h"
#include "mezzo/model/family.h"

namespace mezzo {
namespace {

using namespace mezzo::testing;

struct Case {
  std::string model;
  bool fp32;
};
std::string name_of(const Case& c) { return c.model + (c.fp32 ? "_fp32" : "_bf16"); }
void PrintTo(const Case& c, std::ostream* out) { *out << name_of(c); }

class CudaGoldens : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    std::string reason;
    if (!cuda_available(&reason)) GTEST_SKIP() << reason;
    backend = make_backend({.device = DeviceKind::cuda, .fp32 = GetParam().fp32});
  }

  // Relative to the largest logit or log-probability.
  //
  // fp32: sums of up to 150 terms through two or three layers; 1.7e-6 was the worst seen of the first five
  // families. The promise for all is 1e-4.
  //
  // bf16 has 8 significant bits. One rounding moves a value by at most u = 2^-8 of itself, and by 0.4 u in
  // the root mean square. Roundings are taken as independent, and each as passed on at its relative size by
  // what follows: products keep it, norms and residual sums do not enlarge it. n of them in a row then move
  // a logit by 0.4 u sqrt(n) of the logits' root mean square. The largest of some thousand logits is about
  // 3.5 times that mean, the worst error of as many about 4 times its own, so the worst is
  // 0.4 * 4 / 3.5 u sqrt(n) = 0.46 u sqrt(n) of the largest logit. Attention's softmax and log-probabilities
  // of perturbed probes enlarge errors: 4 times that is allowed, 2 u sqrt(n) (rounded up).
  //
  // n: a layer has 2 roundings of weights and of results for each of its products (q|k|v, the attention's
  // output, the MLP's two), and one each for the norms, rotation, softmax, sum of values, activation and
  // residual sums: 2 * 4 + 2 + 1 + 1 + 1 + 1 + 2 = 16; norms of q and k or behind blocks, a gate of its own,
  // a router's share of the experts: 2 more. Embedding, last norm and head: 5. A lost tail, bias or head is
  // off by several times the bound, which is 5e-2 for two layers.
  double tolerance(const Description& description) const {
    if (GetParam().fp32) return measured_in_fp32() ? 3e-6 : 1e-4;
    const double roundings = 18.0 * static_cast<double>(description.layers) + 5.0;
    return 2.0 * 0x1p-8 * std::sqrt(roundings);
  }

  /// What a card has been measured with (docs/numerics.md).
  bool measured_in_fp32() const {
    static const std::set<std::string> models = {"llama", "llama_grouped", "llama_tied", "gpt2", "gptj"};
    return models.contains(GetParam().model);
  }

  void expect_close(const std::vector<float>& got, const std::vector<float>& want) const {
    const double allowed = tolerance(read_description(model_directory(GetParam().model)));
    ASSERT_EQ(got.size(), want.size());
    double scale = 0.0;
    double worst = 0.0;
    for (const float value : want) scale = std::max(scale, std::abs(double{value}));
    for (std::size_t i = 0; i < want.size(); ++i) {
      ASSERT_FALSE(std::isnan(got[i])) << i;
      worst = std::max(worst, std::abs(double{got[i]} - want[i]) / scale);
    }
    EXPECT_LE(worst, allowed);
    fmt::print("{}: worst relative error {:.2e} of {:.2e}\n", name_of(GetParam()), worst, allowed);
  }

  std::unique_ptr<Backend> backend;
};

constexpr auto every = [](std::int32_t) { return true; };

TEST_P(CudaGoldens, LogitsAreThoseOfTransformers) {
  const std::string directory = model_directory(GetParam().model);
  const Safetensors expected = Safetensors::open(directory + "/expected.safetensors");
  const ModelFiles files(directory);
  Decoder decoder(*backend, files.description, Perturbations());
  decoder.load(files, {});
  DeviceBatch batch;
  backend->upload(golden_batch(expected, true, every), batch);
  decoder.reserve(batch.shape, 1);
  decoder.begin(batch);
  ProbeTable table;
  const Probe unperturbed{};
  backend->upload({&unperturbed, 1}, NoiseKind::gaussian, table);
  const std::int64_t vocabulary = files.description.vocabulary;
  std::vector<float> values(static_cast<std::size_t>(batch.shape.loss_rows * vocabulary));
  const Buffer buffer = backend->allocate(values.size() * sizeof(float));
  const View logits = dense(buffer.data(), DType::f32, batch.shape.loss_rows, vocabulary);
  decoder.logits(table, logits);
  backend->read(values, logits, 1);
  expect_close(values, floats(expected, "logits"));
}

TEST_P(CudaGoldens, PerturbedProbesAreThoseOfPeftAloneAndTogether) {
  Golden golden(std::move(backend), GetParam().model);
  const std::vector<Probe>& probes = golden.probes;
  golden.begin(golden_batch(golden.expected, false, every), std::ssize(probes));
  const auto targets = static_cast<std::size_t>(golden.batch.shape.targets);
  const auto evaluate = [&](std::span<const Probe> group) { return golden.evaluate(group); };
  const std::map<std::string, std::string> chosen = golden.backend->fingerprint();
  const std::vector<float> together = evaluate(probes);
  expect_close(together, floats(golden.expected, "logprobs"));
  EXPECT_EQ(evaluate(probes), together);
  for (std::size_t p = 0; p < probes.size(); ++p) {
    const std::vector<float> alone = evaluate({&probes[p], 1});
    EXPECT_TRUE(
        std::equal(alone.begin(), alone.end(), together.begin() + static_cast<std::ptrdiff_t>(p * targets)))
        << "probe " << p;
  }
  std::vector<Probe> turned(probes.rbegin(), probes.rend());
  const std::vector<float> backwards = evaluate(turned);
  for (std::size_t p = 0; p < probes.size(); ++p) {
    const auto first = backwards.begin() + static_cast<std::ptrdiff_t>((probes.size() - 1 - p) * targets);
    EXPECT_TRUE(std::equal(first, first + static_cast<std::ptrdiff_t>(targets),
                           together.begin() + static_cast<std::ptrdiff_t>(p * targets)))
        << "probe " << p;
  }
  EXPECT_EQ(golden.backend->fingerprint(), chosen);  // no forward chooses an algorithm
}

TEST_P(CudaGoldens, WhatIsRepeatedHasTheSameBitsAndReadsNewSeeds) {
  Golden golden(std::move(backend), GetParam().model);
  golden.begin(golden_batch(golden.expected, false, every), 4);
  const DeviceBatch& batch = golden.batch;
  Decoder& decoder = golden.decoder;
  const auto count = static_cast<std::size_t>(4 * batch.shape.targets);
  const Buffer buffer = golden.backend->allocate(count * sizeof(float));
  View out = dense(buffer.data(), DType::f32, 1, batch.shape.targets);
  out.probe_stride = batch.shape.targets;
  ProbeTable kept;
  const auto evaluate = [&](ProbeTable& table, std::uint64_t seed) {
    std::vector<Probe> probes;
    for (std::uint32_t p = 0; p < 4; ++p)
      probes.push_back({.seed = seed + p / 2, .direction = p / 2, .epsilon = p % 2 == 0 ? 0.1f : -0.1f});
    golden.backend->upload(probes, NoiseKind::gaussian, table);
    std::vector<float> values(count);
    decoder.evaluate(table, out);
    golden.backend->read(values, out, 4);
    return values;
  };
  // Tables of their own, kept side by side: no two calls in a row are alike.
  std::vector<std::vector<float>> alone;
  std::vector<ProbeTable> tables(4);
  for (std::uint64_t seed = 0; seed < 4; ++seed) alone.push_back(evaluate(tables[seed], seed));
  EXPECT_NE(alone[0], alone[1]);
  for (std::uint64_t call = 0; call < 8; ++call) EXPECT_EQ(evaluate(kept, call % 4), alone[call % 4]) << call;
  decoder.reserve(batch.shape, 8);  // all scratch moves
  decoder.begin(batch);
  for (std::uint64_t call = 0; call < 5; ++call) EXPECT_EQ(evaluate(kept, call % 4), alone[call % 4]) << call;
}

INSTANTIATE_TEST_SUITE_P(Models, CudaGoldens, ::testing::ValuesIn([] {
                           std::vector<Case> cases;
                           for (const std::string& model : golden_models) {
                             cases.push_back({model, true});
                             cases.push_back({model, false});
                           }
                           return cases;
                         }()),
                         [](const auto& which) { return name_of(which.param); });

}  // namespace
}  // namespace mezzo
