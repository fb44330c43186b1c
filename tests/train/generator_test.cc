// What the cache gives against whole forwards over the same tokens, and the same bits in any company.
// Registered a second time under OPENBLAS_CORETYPE=Haswell, whose kernels change a row's bits with the rows
// around it.
#include <map>

#include "generator_model.h"

namespace mezzo::test {
namespace {

struct Case {
  std::string model;
  DeviceKind device;
};
std::string name_of(const Case& c) {
  return c.model + (c.device == DeviceKind::reference ? "_reference" : "_cpu");
}
void PrintTo(const Case& c, std::ostream* out) { *out << name_of(c); }

class GeneratorOfFamilies : public ::testing::TestWithParam<Case> {};

TEST_P(GeneratorOfFamilies, WritesWhatWholeForwardsFindLikeliest) {
  Model model(GetParam().model, {.device = GetParam().device});
  expect_likeliest(model, 12, 1e-4);
}

std::vector<Case> every_family() {
  std::vector<Case> cases;
  for (const char* const name :
       {"llama", "llama_grouped", "llama_longrope_long", "gpt2", "gptj", "gpt_neox", "mistral", "mixtral",
        "opt", "opt_350m", "phi3_longrope", "gemma2", "gemma3", "qwen2_window", "qwen3", "qwen3_moe"}) {
    for (const DeviceKind device : {DeviceKind::reference, DeviceKind::cpu}) cases.push_back({name, device});
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(, GeneratorOfFamilies, ::testing::ValuesIn(every_family()),
                         [](const auto& of) { return name_of(of.param); });

class GeneratorCompany : public ::testing::TestWithParam<const char*> {};

TEST_P(GeneratorCompany, GroupsSlotsAndRanksChangeNothing) {
  Model model(GetParam(), {.device = DeviceKind::cpu});
  expect_same_in_any_company(model, {.temperature = 1.0f});
}

TEST_P(GeneratorCompany, ThreadsChangeNothing) {
  const std::vector<Probe> probes = some_probes();
  const GenerationRule rule{.max_new_tokens = 20, .sampling = {.temperature = 1.0f, .top_p = 0.9f}};
  Completions of[2];
  for (const int threads : {1, 3}) {
    Model model(GetParam(), {.device = DeviceKind::cpu, .threads = threads});
    of[threads / 3] = generate(model, probes, model.requests(8), rule, 72, 96);
  }
  for (std::size_t p = 0; p < probes.size(); ++p) {
    for (std::size_t n = 0; n < of[0][p].size(); ++n) expect_same(of[1][p][n], of[0][p][n], "three threads");
  }
}

INSTANTIATE_TEST_SUITE_P(, GeneratorCompany, ::testing::Values("llama_grouped", "gpt2", "qwen3_moe"),
                         [](const auto& of) { return std::string(of.param); });

TEST(Generator, SequencesThatEndGiveTheirSlotsToOthers) {
  Model model("llama", {.device = DeviceKind::cpu});
  const std::vector<Probe> probes = some_probes();
  const std::vector<GenerationRequest> requests = model.requests(8);
  GenerationRule rule{.max_new_tokens = 20, .sampling = {.temperature = 1.5f}};
  const Completions whole = generate(model, probes, requests, rule, 72, 96);
  for (std::int32_t id = 0; id < model.vocabulary(); id += 2) rule.ends.push_back(id);
  const Completions ended = generate(model, probes, requests, rule, 72, 32);
  std::map<std::size_t, int> lengths;
  for (std::size_t p = 0; p < probes.size(); ++p) {
    for (std::size_t n = 0; n < requests.size(); ++n) {
      // Up to the first even token, which is no part of it.
      const std::vector<std::int32_t>& all = whole[p][n].tokens;
      const auto end = std::ranges::find_if(all, [](std::int32_t id) { return id % 2 == 0; });
      EXPECT_EQ(ended[p][n].tokens, std::vector<std::int32_t>(all.begin(), end));
      EXPECT_EQ(ended[p][n].finish, end == all.end() ? FinishReason::length : FinishReason::stop);
      ++lengths[ended[p][n].tokens.size()];
    }
  }
  EXPECT_GT(lengths[0], 0);
  EXPECT_GT(lengths.size(), 4u);
}

TEST(Generator, StopTextsEndACompletionAndAreNoPartOfIt) {
  Model model("llama", {.device = DeviceKind::reference});
  const Probe unperturbed{};
  const std::vector<GenerationRequest> requests = model.requests(1);
  const Completions whole = generate(model, {&unperturbed, 1}, requests, {.max_new_tokens = 10}, 9, 32);
  const std::string stop = " " + std::to_string(whole[0][0].tokens[3]) + " ";
  const Completions stopped = generate(model, {&unperturbed, 1}, requests,
                                       {.max_new_tokens = 10, .stops = {"no such text", stop}}, 9, 32);
  EXPECT_EQ(stopped[0][0].text, whole[0][0].text.substr(0, whole[0][0].text.find(stop)));
  EXPECT_EQ(stopped[0][0].finish, FinishReason::stop);
}

TEST(Generator, EndsWithTheModelsPositions) {
  Model model("llama", {.device = DeviceKind::cpu});
  std::vector<std::int32_t> prompt(static_cast<std::size_t>(model.positions() - 3), 5);
  std::vector<std::int32_t> full(static_cast<std::size_t>(model.positions()), 5);
  const std::vector<GenerationRequest> requests = {{.prompt = prompt}, {.prompt = full, .number = 1}};
  const Probe unperturbed{};
  const Completions got = generate(model, {&unperturbed, 1}, requests, {.max_new_tokens = 10}, 2, 32);
  EXPECT_EQ(got[0][0].tokens.size(), 3u);
  EXPECT_EQ(got[0][1].tokens.size(), 0u);
  EXPECT_EQ(got[0][1].finish, FinishReason::length);
}

TEST(Generator, PromptsOfManyTokensGoThroughSeveralForwards) {
  Model model("llama", {.device = DeviceKind::cpu});
  const Probe unperturbed{};
  std::vector<std::vector<std::int32_t>> prompts;
  std::int64_t tokens = 0;
  for (std::int32_t i = 0; tokens <= 2 * most_prefill_tokens; ++i) {
    auto& prompt = prompts.emplace_back(static_cast<std::size_t>(model.positions() - 6 - i % 5));
    for (std::size_t t = 0; t < prompt.size(); ++t)
      prompt[t] = static_cast<std::int32_t>((7 * static_cast<std::size_t>(i) + 5 * t) % 90);
    tokens += std::ssize(prompt);
  }
  std::vector<GenerationRequest> requests;
  for (const auto& prompt : prompts) requests.push_back({.prompt = prompt, .number = std::ssize(requests)});
  const GenerationRule rule{.max_new_tokens = 4};
  const std::int64_t all = std::ssize(requests);
  EXPECT_LE(shape_of(requests, DecodingRows::of(all, all), rule, model.positions()).tokens,
            most_prefill_tokens);
  const Completions together = generate(model, {&unperturbed, 1}, requests, rule, all, all);
  const Completions in_blocks = generate(model, {&unperturbed, 1}, requests, rule, all, 32);
  for (std::size_t n = 0; n < requests.size(); ++n) expect_same(in_blocks[0][n], together[0][n], "in blocks");
}

TEST(Generator, DrawsAreTheSameForEveryProbe) {
  Model model("llama", {.device = DeviceKind::cpu});
  const std::vector<Probe> same = {{.seed = 1, .direction = 0, .epsilon = 0.0f}, {}};
  const std::vector<GenerationRequest> requests = model.requests(2);
  const Completions got =
      generate(model, same, requests, {.max_new_tokens = 8, .sampling = {.temperature = 1.0f}}, 18, 32);
  std::size_t different = 0;
  for (std::size_t n = 0; n < requests.size(); ++n) {
    EXPECT_EQ(got[0][n].tokens, got[1][n].tokens);
    different += n % 2 == 1 && got[0][n].tokens != got[0][n - 1].tokens;
  }
  EXPECT_GT(different, 5u);  // samples of one prompt
}

TEST(Generator, MemoryIsWhatWasPlanned) {
  for (const char* const name : {"llama", "opt_350m", "qwen3_moe"}) {
    Model model(name, {.device = DeviceKind::cpu});
    const NumberTokenizer tokenizer;
    const GenerationRule rule{.max_new_tokens = 7};
    const Generator generator(model.runner, tokenizer, rule, model.positions());
    const std::vector<GenerationRequest> requests = model.requests(8);
    const DecodingRows rows = DecodingRows::of(72, 32);
    const BatchShape shape = shape_of(requests, rows, rule, model.positions());
    const std::size_t planned = model.decoder.activation_bytes(shape, 5);
    model.runner.reserve(shape, 5);
    generator.run(some_probes(), NoiseKind::gaussian, requests, rows, [](auto, auto, Generated&&) {});
    EXPECT_EQ(model.decoder.arena_high_water(), planned) << name;
  }
}

}  // namespace
}  // namespace mezzo::test
