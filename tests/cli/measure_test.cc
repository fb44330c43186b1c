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

  ScratchFolder scratch_;
};

TEST_F(MeasureTest, BenchReportsEveryNumber) {
  const nlohmann::json json = json_of(
      "bench --layers 1 --shapes 1x8,2x4 --models gpt2 --directions 2 --device cpu --repetitions 1 "
      "--gemm-bound "
      "--one-by-one --upper-half --base-forward");
  EXPECT_EQ(json.at("backend"), "cpu");
  EXPECT_EQ(json.at("dtype"), "fp32");
  EXPECT_TRUE(json.at("fingerprint").contains("blas_core"));
  EXPECT_TRUE(json.at("fingerprint").contains("libm"));
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
       {"step_s", "steps_per_hour", "tokens_per_s", "update_s", "update_share", "gemm_bound_s",
        "step_over_gemm_bound", "gemm_bound_tflops", "one_by_one_s", "one_by_one_over_step", "upper_half_s",
        "upper_half_over_step", "group_forward_s", "base_forward_s", "group_over_base_forward"}) {
    EXPECT_GT(result.at(key).get<double>(), 0.0) << key;
  }
  for (const char* key : {"weight_bytes", "arena_bytes", "scratch_bytes"}) {
    EXPECT_GT(result.at(key).get<std::int64_t>(), 0) << key;
  }
}

TEST_F(MeasureTest, BenchPerturbsTheModulesThatItIsTold) {
  const std::string bench =
      "bench --layers 1 --shapes 1x8 --models gpt2 --directions 1 --device cpu --repetitions 1 ";
  const auto trainables = [&](const std::string& options) {
    return json_of(bench + options).at("results")[0].at("trainables").get<std::int64_t>();
  };
  EXPECT_EQ(trainables("--lora-r 3 --target-modules mlp.c_proj"), 3 * (3072 + 768));
  EXPECT_EQ(trainables("--lora-r 3 --target-modules all-linear"),
            3 * ((768 + 2304) + (768 + 768) + 2 * (768 + 3072)));
  const Outcome outcome = run(scratch_, bench + "--target-modules q_proj");
  EXPECT_NE(outcome.status, 0);
  EXPECT_NE(outcome.err.find("matches no module of this gpt2 model"), std::string::npos) << outcome.err;
  // A model that lacks them is found before another one is measured.
  const Outcome second = run(scratch_, bench + "--models gpt2,gptj6b --target-modules c_attn");
  EXPECT_NE(second.status, 0);
  EXPECT_EQ(second.out, "");
  EXPECT_NE(second.err.find("matches no module of this gptj model"), std::string::npos) << second.err;
}

TEST_F(MeasureTest, BenchRefusesWhatItDoesNotKnow) {
  EXPECT_EQ(run(scratch_, "bench --models gpt5").status, 2);
  for (const char* shape : {"8", "x8", "8x", "0x8", "8x8x8"}) {
    const Outcome outcome = run(scratch_, fmt::format("bench --models gpt2 --shapes {}", shape));
    EXPECT_EQ(outcome.status, 2);
    EXPECT_NE(outcome.err.find("BATCHxTOKENS"), std::string::npos) << outcome.err;
  }
}

// A plan made from config.json, tokenizer and data alone is the one that a run makes with its weights loaded.
TEST_F(MeasureTest, EstimateIsWhatARunPlans) {
  const std::string model = scratch_ / "model";
  std::filesystem::create_directories(model);
  for (const std::string name : {"/config.json", "/tokenizer.json"}) {
    std::filesystem::copy_file(MEZZO_SOURCE_DIR "/configs/quickstart/llama2m" + name, model + name);
  }
  for (const std::string more :
       {"", "train.batch_slices=2 zo.directions=3 zo.probes_per_forward=4 lora.layers_to_transform=[2,3]",
        "zo.directions=3 zo.step_limit=0.15",
        "zo.estimator=one_sided lora.target_modules=all-linear zo.directions=4"}) {
    const std::string config =
        "configs/quickstart.yaml train.max_steps=1 runtime.device=cpu runtime.threads=2 " + more +
        " train.output_dir=" + (scratch_ / "run");
    const nlohmann::json plan = json_of(fmt::format("estimate {} model.path={}", config, model));
    const nlohmann::json real = json_of(fmt::format("profile {} --steps 1", config));
    SCOPED_TRACE(plan.dump() + "\n" + real.dump());
    for (const char* key : {"weight_bytes", "activation_bytes", "scratch_bytes", "probes",
                            "probes_per_forward", "backend", "dtype", "threads"}) {
      EXPECT_EQ(plan.at(key), real.at(key)) << key;
    }
    EXPECT_EQ(plan.at("activation_bytes"), real.at("arena_high_water_bytes"));
    for (const std::string kind : {"product", "low_rank", "attention"}) {
      double operations = 0.0;
      for (const nlohmann::json& row : real.at("operations"))
        operations += row.at(kind + "_operations").get<double>();
      EXPECT_EQ(plan.at("operations").at(kind == "product" ? "products" : kind), operations) << kind;
    }
  }
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "run"));
}

TEST_F(MeasureTest, EstimateSaysWhatDecidedTheGroup) {
  const std::string config = "estimate configs/quickstart.yaml --device cuda ";
  const nlohmann::json fair = json_of(config + "--memory-gib 80 --ranks 5 --tflops 2");
  EXPECT_EQ(fair.at("probes_per_forward"), 4);
  EXPECT_EQ(fair.at("probes_per_forward_reason"), "fair_share");
  EXPECT_EQ(fair.at("forwards"), 5);  // 16 probes on 5 ranks: all have work, none more than 4 probes
  EXPECT_EQ(fair.at("fits"), true);
  const double products = fair.at("operations").at("rank_products").get<double>();
  const double all = fair.at("operations").at("products").get<double>();
  EXPECT_LT(all, 5.0 * products);
  EXPECT_GT(all, 4.0 * products);  // k is shared in a forward, so that small ones do a little more
  EXPECT_DOUBLE_EQ(fair.at("products_s").get<double>(), products / 2e12);
  EXPECT_DOUBLE_EQ(fair.at("run_products_s").get<double>(), 100.0 * products / 2e12);

  const nlohmann::json one = json_of(config + "zo.probes_per_forward=1");
  EXPECT_EQ(one.at("probes_per_forward_reason"), "asked");
  EXPECT_TRUE(one.at("memory_bytes").is_null());
  EXPECT_TRUE(one.at("fits").is_null());
  const double gib = one.at("total_bytes").get<double>() * 1.2 / (1 << 30);
  const nlohmann::json tight = json_of(fmt::format("{} --memory-gib {}", config, gib));
  EXPECT_EQ(tight.at("probes_per_forward_reason"), "memory");
  EXPECT_LT(tight.at("probes_per_forward"), 16);
  EXPECT_EQ(tight.at("fits"), true);
  const nlohmann::json large = json_of(config + "zo.probes_per_forward=16 --memory-gib 0.01");
  EXPECT_EQ(large.at("fits"), false);
}

// A profile made up so that every sum can be done by hand: 16 probes of one slice, work in proportion to the
// rows but for 0.5 s a forward.
TEST_F(MeasureTest, EstimateForecastsStepsFromMeasuredParts) {
  const std::string config =
      "estimate configs/quickstart.yaml runtime.device=cpu runtime.threads=1 train.max_steps=1 "
      "zo.step_limit=null ";
  const nlohmann::json plan = json_of(config);
  ASSERT_EQ(plan.at("scaling").size(), 1u);
  EXPECT_TRUE(plan.at("scaling")[0].at("step_s").is_null());
  const auto tokens = plan.at("largest_slice").at("tokens").get<std::int64_t>();  // of the only slice
  nlohmann::json profile = {
      {"backend", "cpu"}, {"dtype", "fp32"}, {"threads", 1}, {"weight_bytes", plan.at("weight_bytes")}};
  profile["parts"] = {{"slice_tokens", tokens},
                      {"begin_s", 0.25},
                      {"update_s", 0.5},
                      {"hash_s", 0.0},
                      {"host_s", 0.25},
                      {"forwards", {{{"probes", 1}, {"seconds", 1.5}}, {{"probes", 16}, {"seconds", 16.5}}}}};
  const std::string file = scratch_ / "profile.json";
  write_file(file, profile.dump());
  const nlohmann::json scaling =
      json_of(config + "--ranks 2,1,5,16,32 --exchange-us 1e6,2e6,1e6 --measured " + file).at("scaling");
  ASSERT_EQ(scaling.size(), 5u);
  const double alone = 0.25 + 16.5 + 0.75;
  const struct {
    int ranks, working, probes;
  } expected[] = {{2, 2, 8}, {1, 1, 16}, {5, 5, 4}, {16, 16, 1}, {32, 16, 1}};
  for (std::size_t i = 0; i < scaling.size(); ++i) {
    const nlohmann::json& row = scaling[i];
    const auto [ranks, working, probes] = expected[i];
    SCOPED_TRACE(row.dump());
    EXPECT_EQ(row.at("ranks"), ranks);
    EXPECT_EQ(row.at("working_ranks"), working);
    EXPECT_EQ(row.at("probes_per_forward"), probes);
    EXPECT_EQ(row.at("largest_load"), probes * tokens);
    EXPECT_DOUBLE_EQ(row.at("balance").get<double>(), 16.0 / ranks / probes);
    const double words = 4 * 16 + 3 * ranks;
    EXPECT_EQ(row.at("exchange_words"), words);
    const double exchange = ranks == 1 ? 0.0 : 1.0 + (ranks - 1) * (2.0 + words / 1000.0);
    EXPECT_NEAR(row.at("exchange_s").get<double>(), exchange, 1e-9);  // microseconds are no binary fraction
    EXPECT_DOUBLE_EQ(row.at("work_s").get<double>(), 0.25 + 0.5 + probes);
    const double step = 0.25 + 0.5 + probes + 0.75 + exchange;
    EXPECT_NEAR(row.at("step_s").get<double>(), step, 1e-9);
    EXPECT_NEAR(row.at("speed_up").get<double>(), alone / step, 1e-9);
    EXPECT_NEAR(row.at("efficiency").get<double>(), alone / step / ranks, 1e-9);
  }

  // What was measured of something else is refused, and what is no profile.
  const auto refused = [&](const nlohmann::json& other, int status, const std::string& why) {
    write_file(file, other.dump());
    const Outcome outcome = run(scratch_, config + "--measured " + file);
    EXPECT_EQ(outcome.status, status);
    ASSERT_EQ(outcome.errors().size(), 1u) << outcome.err;
    EXPECT_NE(outcome.err.find(why), std::string::npos) << outcome.err;
  };
  nlohmann::json other = profile;
  other["threads"] = 2;
  refused(other, 2, "threads is 2 there, but 1 in this forecast");
  other = profile;
  other["weight_bytes"] = 1;
  refused(other, 2, "weight_bytes is 1 there");
  other = profile;
  other["parts"].erase("begin_s");
  refused(other, 1, "begin_s");
  other = profile;
  std::swap(other["parts"]["forwards"][0], other["parts"]["forwards"][1]);
  refused(other, 1, "ascending");
}

// Adam keeps two numbers for each trainable one.
TEST_F(MeasureTest, TheEstimateCountsWhatTheOptimizerKeeps) {
  const std::string command = "estimate configs/quickstart.yaml --device cuda zo.probes_per_forward=1 ";
  const nlohmann::json sgd = json_of(command);
  const nlohmann::json adam = json_of(command + "optimizer.type=adam");
  const auto trainable = sgd.at("trainable_bytes").get<std::int64_t>();
  EXPECT_EQ(sgd.at("optimizer_bytes"), 0);
  EXPECT_EQ(adam.at("optimizer_bytes"), 2 * trainable);
  EXPECT_EQ(adam.at("total_bytes").get<std::int64_t>() - sgd.at("total_bytes").get<std::int64_t>(),
            2 * trainable);
}

TEST_F(MeasureTest, EstimateRefusesWhatItCannotAnswer) {
  const Outcome unknown = run(scratch_, "estimate configs/quickstart.yaml --device cuda");
  EXPECT_EQ(unknown.status, 2);
  EXPECT_NE(unknown.err.find("--memory-gib: missing"), std::string::npos) << unknown.err;
  for (const char* option :
       {"--memory-gib 0", "--memory-gib much", "--memory-gib 1e9", "--memory-gib nan", "--tflops -1",
        "--ranks 0", "--ranks 1,x", "--exchange-us 1,2,3,4", "--exchange-us -1", "--measured nowhere.json",
        "--device tpu", "runtime.dtype=bf16"}) {
    EXPECT_EQ(
        run(scratch_, fmt::format("estimate configs/quickstart.yaml runtime.device=cpu {}", option)).status,
        2)
        << option;
  }
  const Outcome small = run(scratch_, "estimate configs/quickstart.yaml --device cpu --memory-gib 0.001");
  EXPECT_EQ(small.status, 1);
  ASSERT_EQ(small.errors().size(), 1u) << small.err;
  EXPECT_NE(small.err.find("weights, trainables and the optimizer's state take"), std::string::npos)
      << small.err;
}

TEST_F(MeasureTest, ProfileTakesNoMoreStepsThanTheRunHas) {
  const std::string profile =
      "profile configs/quickstart.yaml runtime.device=cpu zo.directions=1 train.batch_size=1 "
      "train.max_steps=1 ";
  EXPECT_EQ(json_of(profile).at("steps"), 1);
  const Outcome outcome = run(scratch_, profile + "--steps 2");
  EXPECT_EQ(outcome.status, 2) << outcome.err;
  ASSERT_EQ(outcome.errors().size(), 1u) << outcome.err;
  EXPECT_NE(outcome.errors()[0].find("--steps: found 2, but the run has 1 (train.max_steps)"),
            std::string::npos)
      << outcome.err;
}

TEST_F(MeasureTest, ProfileSaysWhereAStepGoes) {
  const nlohmann::json json = json_of(
      "profile configs/quickstart.yaml --steps 1 runtime.device=cpu zo.directions=2 train.batch_size=4 "
      "zo.step_limit=null train.output_dir=" +
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
    EXPECT_EQ(row.at("gb_per_s").is_null(), row.at("bytes") == 0.0) << names.back();
    shares += row.at("share").get<double>();
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{"qkv", "attention_output", "mlp_input", "mlp_output", "head",
                                      "attention", "norm", "embed_gather", "update", "hash", "upload_read"}));
  EXPECT_LE(shares, 1.0 + 1e-9);
  // Rows of 128 numbers that the norms of 4 layers read and write: h and x before the first layer, which all
  // 4 probes share as they do h throughout that layer; then each probe h, delta and x behind attention and h,
  // both deltas, the new h and x behind the MLP; in the last layer of the 4 rows that are read.
  const double shared = json.at("tokens").get<double>();
  const double own = 4 * shared;
  const double rows =
      2 * shared + (shared + 2 * own) + (shared + 4 * own) + 2 * (3 + 5) * own + (3 + 5) * 4 * 4;
  EXPECT_EQ(json.at("operations")[6].at("bytes"), rows * 128 * 4);
  const nlohmann::json& parts = json.at("parts");
  EXPECT_GT(parts.at("slice_tokens"), 0);
  for (const char* key : {"begin_s", "update_s", "hash_s", "host_s"}) EXPECT_GT(parts.at(key), 0.0) << key;
  std::vector<std::int64_t> probes;
  for (const nlohmann::json& forward : parts.at("forwards")) {
    probes.push_back(forward.at("probes").get<std::int64_t>());
    EXPECT_GT(forward.at("seconds"), 0.0);
  }
  EXPECT_EQ(probes, (std::vector<std::int64_t>{1, 2, 4}));
  for (const char* key :
       {"step_s", "profiled_step_s", "products_s", "products_tflops", "peak_tflops", "copy_gb_per_s"}) {
    EXPECT_GT(json.at(key).get<double>(), 0.0) << key;
  }
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "run"));
  EXPECT_EQ(run(scratch_, "profile configs/quickstart.yaml --steps 0").status, 2);
}

}  // namespace
}  // namespace mezzo::test
