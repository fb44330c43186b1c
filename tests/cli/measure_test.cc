// The verbs that measure: they run, and their JSON has what is promised.
#include <gtest/gtest.h>

#include "program.h"

namespace mezzo::test {
namespace {

class MeasureTest : public ::testing::Test {
 protected:
  nlohmann::json json_of(const std::string& arguments) {
    const Outcome outcome = run(scratch_, arguments + " --json");
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out);
  }

  Scratch scratch_;
};

TEST_F(MeasureTest, BenchReportsEveryNumber) {
  const nlohmann::json json = json_of(
      "bench --layers 1 --shapes 1x8,2x4 --models gpt2 --directions 2 --device cpu --repetitions 1 --floor "
      "--one-by-one --upper-half --base-forward");
  EXPECT_EQ(json.at("backend"), "cpu");
  EXPECT_EQ(json.at("dtype"), "fp32");
  EXPECT_TRUE(json.at("fingerprint").contains("blas_core"));
  ASSERT_EQ(json.at("results").size(), 2u);
  const nlohmann::json& result = json.at("results")[0];
  EXPECT_EQ(result.at("model"), "gpt2");
  EXPECT_EQ(result.at("shape"), "1x8");
  EXPECT_EQ(result.at("directions"), 2);
  EXPECT_EQ(result.at("layers"), 1);
  EXPECT_EQ(result.at("probes"), 4);
  EXPECT_EQ(result.at("probes_per_forward"), 4);
  EXPECT_EQ(result.at("trainables"), 8 * 768 + 3 * 768 * 8);
  for (const char* key :
       {"step_s", "steps_per_hour", "tokens_per_s", "update_s", "update_share", "floor_s", "step_over_floor",
        "floor_tflops", "one_by_one_s", "one_by_one_over_step", "upper_half_s", "upper_half_over_step",
        "group_forward_s", "base_forward_s", "group_over_base_forward"}) {
    EXPECT_GT(result.at(key).get<double>(), 0.0) << key;
  }
  for (const char* key : {"weight_bytes", "arena_bytes", "scratch_bytes"}) {
    EXPECT_GT(result.at(key).get<std::int64_t>(), 0) << key;
  }
}

TEST_F(MeasureTest, BenchRefusesWhatItDoesNotKnow) {
  EXPECT_EQ(run(scratch_, "bench --models gpt5").status, 2);
  for (const char* shape : {"8", "x8", "8x", "0x8", "8x8x8"}) {
    const Outcome outcome = run(scratch_, fmt::format("bench --models gpt2 --shapes {}", shape));
    EXPECT_EQ(outcome.status, 2);
    EXPECT_NE(outcome.err.find("BATCHxTOKENS"), std::string::npos) << outcome.err;
  }
}

TEST_F(MeasureTest, ProfileSaysWhereAStepGoes) {
  const nlohmann::json json = json_of(
      "profile configs/quickstart.yaml --steps 1 runtime.device=cpu zo.directions=2 train.batch_size=4 "
      "train.output_dir=" +
      (scratch_ / "run"));
  EXPECT_EQ(json.at("steps"), 1);
  EXPECT_EQ(json.at("probes"), 4);
  EXPECT_NE(json.at("timing").get<std::string>().find("one by one"), std::string::npos);
  double shares = json.at("host_share").get<double>();
  EXPECT_GT(shares, 0.0);
  std::vector<std::string> names;
  for (const nlohmann::json& row : json.at("operations")) {
    names.push_back(row.at("name").get<std::string>());
    EXPECT_GT(row.at("calls").get<double>(), 0.0) << names.back();
    EXPECT_GT(row.at("seconds").get<double>(), 0.0) << names.back();
    EXPECT_EQ(row.at("tflops").is_null(), row.at("product_operations") == 0.0) << names.back();
    shares += row.at("share").get<double>();
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{"qkv", "attention_output", "mlp_input", "mlp_output", "head",
                                      "attention", "norm", "embed_gather", "update", "hash", "upload_read"}));
  EXPECT_LE(shares, 1.0 + 1e-9);
  for (const char* key : {"step_s", "profiled_step_s", "products_s", "products_tflops", "peak_tflops"}) {
    EXPECT_GT(json.at(key).get<double>(), 0.0) << key;
  }
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "run"));
  EXPECT_EQ(run(scratch_, "profile configs/quickstart.yaml --steps 0").status, 2);
}

}  // namespace
}  // namespace mezzo::test
