// The configs of the paper's eleven tasks (configs/mezo), on a few records in the form in which the data are
// public.
#include <gtest/gtest.h>

#include "program.h"

namespace mezzo::test {
namespace {

constexpr const char* tasks[][2] = {{"sst2", "tsv"},      {"rte", "jsonl"},  {"cb", "jsonl"},
                                    {"boolq", "jsonl"},   {"wsc", "jsonl"},  {"wic", "jsonl"},
                                    {"multirc", "jsonl"}, {"copa", "jsonl"}, {"record", "jsonl"},
                                    {"squad", "json"},    {"drop", "json"}};

class MezoConfigs : public ::testing::TestWithParam<const char* const (*)[2]> {};

TEST_P(MezoConfigs, ValidateAndTrainAStep) {
  const auto& [name, extension] = *GetParam();
  const ScratchFolder scratch;
  const std::string data = fmt::format("tests/data/mezo/{}.{}", name, extension);
  const std::string arguments = fmt::format(
      "configs/mezo/{0}.yaml model.path=configs/quickstart/llama2m data.train={1} data.validation={1} "
      "train.max_steps=1 train.batch_size=2 train.eval_steps=1 train.output_dir={2} lora.r=1 "
      "runtime.device=cpu "
      "runtime.threads=1",
      name, data, scratch / "run");
  const Outcome validated = run(scratch, "validate " + arguments);
  EXPECT_EQ(validated.status, 0) << validated.err;
  EXPECT_NE(validated.err.find("all inputs are good"), std::string::npos) << validated.err;
  // The one thing that is wrong with these files.
  const std::size_t warning = validated.err.find("warning");
  EXPECT_EQ(validated.err.find("records"), std::string::npos) << validated.err;
  EXPECT_NE(warning, std::string::npos) << validated.err;
  const Outcome trained = run(scratch, "train " + arguments);
  EXPECT_EQ(trained.status, 0) << trained.err;
  EXPECT_TRUE(std::filesystem::exists(scratch / "run/adapter/adapter_model.safetensors"));
}

std::string name_of_task(const ::testing::TestParamInfo<const char* const (*)[2]>& info) {
  return (*info.param)[0];
}

std::vector<const char* const (*)[2]> all_tasks() {
  std::vector<const char* const(*)[2]> all;
  for (const auto& task : tasks) all.push_back(&task);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Paper, MezoConfigs, ::testing::ValuesIn(all_tasks()), name_of_task);

}  // namespace
}  // namespace mezzo::test
