// Completions on a CUDA card, in fp32 and bf16.
#include "generator_model.h"

namespace mezzo::test {
namespace {

struct Case {
  std::string model;
  bool fp32;
};
std::string name_of(const Case& c) { return c.model + (c.fp32 ? "_fp32" : "_bf16"); }
void PrintTo(const Case& c, std::ostream* out) { *out << name_of(c); }

class CudaGenerator : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    std::string reason;
    if (!cuda_available(&reason)) GTEST_SKIP() << reason;
    model.emplace(GetParam().model, BackendOptions{.device = DeviceKind::cuda, .fp32 = GetParam().fp32});
  }
  std::optional<Model> model;
};

// In bf16 a logit moves by up to some 2^-8 of the largest at each of its roundings, which a whole forward and
// the cache have at other places; the golden models' logits are up to 4.
TEST_P(CudaGenerator, WritesWhatWholeForwardsFindLikeliest) {
  expect_likeliest(*model, 12, GetParam().fp32 ? 1e-4 : 0.1);
}

TEST_P(CudaGenerator, GroupsSlotsAndRanksChangeNothing) {
  expect_same_in_any_company(*model, {.temperature = 1.0f});
}

TEST_P(CudaGenerator, NucleiAreThoseOfTheHost) {
  if (!GetParam().fp32) return;
  // Logits differ in their last bits: a draw rarely does.
  Model host(GetParam().model, {.device = DeviceKind::cpu});
  const std::vector<Probe> probes = some_probes();
  const GenerationRule rule{.max_new_tokens = 2, .sampling = {.temperature = 1.2f, .top_p = 0.6f}};
  const Completions want = generate(host, probes, host.requests(8), rule, 72, 96);
  const Completions got = generate(*model, probes, model->requests(8), rule, 72, 96);
  std::size_t different = 0;
  for (std::size_t p = 0; p < probes.size(); ++p) {
    for (std::size_t n = 0; n < want[p].size(); ++n) different += got[p][n].tokens != want[p][n].tokens;
  }
  EXPECT_LE(different, 3u);  // of 360
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* const name :
       {"llama", "llama_grouped", "gpt2", "gptj", "gpt_neox", "mistral", "mixtral", "opt", "phi3_longrope",
        "gemma2", "gemma3", "qwen2_window", "qwen3", "qwen3_moe"}) {
    for (const bool fp32 : {true, false}) all.push_back({name, fp32});
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(, CudaGenerator, ::testing::ValuesIn(cases()),
                         [](const auto& of) { return name_of(of.param); });

}  // namespace
}  // namespace mezzo::test
