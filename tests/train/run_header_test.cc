#include "mezzo/train/run_header.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/model/family.h"
#include "mezzo/train/replay.h"
#include "scratch.h"

namespace mezzo {
namespace {

using Json = nlohmann::ordered_json;

RunHeader example() {
  RunHeader header;
  header.identity = {{"model.hash", "abc"}, {"zo.directions", "4"}, {"model.tokenizer", "def"}};
  header.settings = {{"train.save_steps", "7"}};
  header.base_model = "/models/llama";
  header.base_hash = "abc";
  header.space = lora_space(read_description(MEZZO_TEST_DATA "/models/llama"), {.r = 2});
  header.optimizer = configure_optimizer({.weight_decay = 0.1});
  header.seed = 0xffffffffffffffff;
  header.noise = NoiseKind::rademacher;
  header.records = {.directions = 4, .probe_losses = 8};
  header.start_step = 3;
  header.start_snapshot = "start.h5";
  header.fingerprint = {{"backend", "cpu"}};
  return header;
}

std::string refusal_of(const std::string& text) {
  try {
    static_cast<void>(RunHeader::from_json(text, "run"));
    return "accepted";
  } catch (const InputError& error) {
    return error.what();
  }
}

/// What is said of the example after a change.
std::string with(const std::function<void(Json&)>& change) {
  Json json = Json::parse(example().to_json());
  change(json);
  return refusal_of(json.dump());
}

TEST(RunHeader, ComesBackAsItWas) {
  const RunHeader header = example();
  const RunHeader back = RunHeader::from_json(header.to_json(), "run");
  EXPECT_EQ(back.to_json(), header.to_json());
  EXPECT_EQ(back.identity, header.identity);
  EXPECT_EQ(back.settings, header.settings);
  EXPECT_EQ(back.trainables(), header.trainables());
  EXPECT_EQ(back.seed, header.seed);
  EXPECT_EQ(back.noise, header.noise);
  EXPECT_EQ(back.records, header.records);
  EXPECT_EQ(back.optimizer->constants(), header.optimizer->constants());
}

// Headers of before estimators kept anything lack the key; theirs stay as they are.
TEST(RunHeader, SaysWhatAnEstimatorKeeps) {
  RunHeader header = example();
  EXPECT_EQ(header.to_json().find("estimator"), std::string::npos);
  header.records.estimator = 4;
  EXPECT_EQ(RunHeader::from_json(header.to_json(), "run").records, header.records);
  for (const char* nonsense : {"0", "-1", "null", "0.5", "9223372036854775807", "\"x\""}) {
    EXPECT_NE(
        with([&](Json& json) { json["estimator_state"] = Json::parse(nonsense); }).find("estimator_state"),
        std::string::npos)
        << nonsense;
  }
}

// Headers of before directions were kept lack the key too.
TEST(RunHeader, SaysForHowManyStepsDirectionsAreKept) {
  RunHeader header = example();
  EXPECT_EQ(header.to_json().find("resample_steps"), std::string::npos);
  header.resample_steps = 3;
  const RunHeader back = RunHeader::from_json(header.to_json(), "run");
  EXPECT_EQ(back.resample_steps, 3);
  EXPECT_EQ(back.run_noise().resample_steps, 3);
  for (const char* nonsense : {"0", "1", "-1", "null", "0.5", "9223372036854775807"}) {
    EXPECT_NE(
        with([&](Json& json) { json["resample_steps"] = Json::parse(nonsense); }).find("resample_steps"),
        std::string::npos)
        << nonsense;
  }
}

// Written by Mezzo 0.1 before headers said which space and which optimizer they are of.
TEST(RunHeader, Version1IsLoraUnderSgd) {
  const RunHeader header = scan_trajectory(MEZZO_TEST_DATA "/runs/plain/trajectory").header;
  EXPECT_EQ(header.space->kind(), "lora");
  EXPECT_EQ(header.space->constants(),
            Json::parse(R"({"r": 1, "lora_alpha": 16.0, "use_rslora": false, "target_modules": ["v_proj"],
                            "layers_to_transform": [1]})"));
  EXPECT_EQ(header.optimizer->kind(), "sgd");
  EXPECT_EQ(header.optimizer->constants(), Json::object({{"weight_decay", 0.25}}));
  EXPECT_EQ(header.records, (RecordShape{.directions = 2, .probe_losses = 0}));
  EXPECT_TRUE(header.settings.empty());
}

TEST(RunHeader, UnknownNamesAreRefusedByName) {
  EXPECT_EQ(with([](Json& json) { json["version"] = 3; }),
            "run: the run's header: version is 3; expected a whole number from 1 to 2");
  EXPECT_EQ(with([](Json& json) { json["noise"] = "cauchy"; }),
            "run: the run's header: noise is \"cauchy\"; expected gaussian or rademacher");
  EXPECT_EQ(
      with([](Json& json) { json["space"]["kind"] = "prefix"; }),
      "run: the run's header: space: the parameter space \"prefix\" is unknown, expected lora or low_rank or "
      "dense or vectors");
  EXPECT_EQ(with([](Json& json) { json["optimizer"]["kind"] = "lion"; }),
            "run: the run's header: optimizer: the optimizer \"lion\" is unknown, expected sgd or momentum "
            "or sign or adam");
  EXPECT_NE(
      with([](Json& json) { json["normalize"] = "std"; }).find("the key \"normalize\" is not known here"),
      std::string::npos);
}

TEST(RunHeader, EveryKeyIsNeededAndHasItsType) {
  const Json all = Json::parse(example().to_json());
  for (const auto& [key, value] : all.items()) {
    EXPECT_NE(with([&](Json& json) { json.erase(key); }).find(key + " is missing"), std::string::npos) << key;
    for (const char* nonsense :
         {"null", "-1", "1e300", "0.5", "\"x\"", "[[]]", "{\"x\": {}}", "[[\"a\", \"b\", \"c\"]]"}) {
      if (key == "start_snapshot" && nonsense == std::string("\"x\"")) continue;  // a name like any other
      const std::string refusal = with([&](Json& json) { json[key] = Json::parse(nonsense); });
      EXPECT_NE(refusal.find("run: the run's header"), std::string::npos)
          << key << " = " << nonsense << ": " << refusal;
      EXPECT_NE(refusal.find(key), std::string::npos) << key << " = " << nonsense << ": " << refusal;
    }
  }
}

TEST(RunHeader, NumbersAreInRange) {
  for (const char* key : {"directions", "start_step", "probe_losses", "version"}) {
    for (const char* number : {"-1", "9223372036854775807", "18446744073709551615", "1e17", "-1e17", "1.0"}) {
      EXPECT_NE(with([&](Json& json) { json[key] = Json::parse(number); }).find(std::string(key) + " is "),
                std::string::npos)
          << key << " = " << number;
    }
  }
  EXPECT_NE(with([](Json& json) { json["directions"] = 0; }).find("directions is 0"), std::string::npos);
  EXPECT_NE(with([](Json& json) { json["initial_adapter"] = true; }).find("initial_adapter is true"),
            std::string::npos);
}

TEST(RunHeader, TrainablesAreNamedOnceInOrderAndHaveSizes) {
  const auto trainables = [](const char* list) {
    return with([&](Json& json) { json["trainables"] = Json::parse(list); });
  };
  EXPECT_EQ(trainables("[]"),
            "run: the run's header: trainables is a list of 0; expected at least one trainable");
  EXPECT_EQ(
      trainables(R"([["a", 1, 1], ["a", 1, 1]])"),
      "run: the run's header: trainables[1][0] is \"a\"; expected a name behind \"a\" in bytewise order");
  EXPECT_EQ(
      trainables(R"([["b", 1, 1], ["a", 1, 1]])"),
      "run: the run's header: trainables[1][0] is \"a\"; expected a name behind \"b\" in bytewise order");
  EXPECT_EQ(trainables(R"([["../a", 1, 1]])"),
            "run: the run's header: trainables[0][0] is \"../a\"; expected a name without /");
  for (const char* extent : {"0", "-1", "-1e+17", "1e+300", "2147483648", "18446744073709551615"}) {
    const std::string bad = Json::parse(extent).dump();
    EXPECT_EQ(
        trainables(fmt::format(R"([["a", {}, 1]])", extent).c_str()),
        fmt::format(
            "run: the run's header: trainables[0][1] is {}; expected a whole number from 1 to 2147483647",
            bad));
    EXPECT_EQ(
        trainables(fmt::format(R"([["a", 1, {}]])", extent).c_str()),
        fmt::format(
            "run: the run's header: trainables[0][2] is {}; expected a whole number from 1 to 2147483647",
            bad));
  }
  // Each extent is one, the product is not.
  EXPECT_NE(
      trainables(R"([["a", 2147483647, 2147483647], ["b", 2147483647, 2147483647]])").find("trainables[0]"),
      std::string::npos);
}

// Found by a fuzzer: what stood in these was undefined behaviour once, or passed.
TEST(RunHeader, CraftedOnesAreOneClearError) {
  const std::string folder = MEZZO_TEST_DATA "/records/";
  const auto header_of = [&](const char* name) {
    const std::string bytes = test::read_all(folder + name);
    return refusal_of(bytes.substr(0, bytes.rfind('}') + 1));
  };
  EXPECT_EQ(
      header_of("negative_columns"),
      "run: the run's header: trainables[0][2] is -1e+17; expected a whole number from 1 to 2147483647");
  EXPECT_EQ(header_of("negative_version"),
            "run: the run's header: version is -1e+17; expected a whole number from 1 to 2");
  EXPECT_EQ(
      header_of("huge_columns"),
      "run: the run's header: trainables[0][2] is -1e+308; expected a whole number from 1 to 2147483647");
}

TEST(RunHeader, NoPrefixOfOneIsAccepted) {
  const std::string text = example().to_json();
  for (std::size_t size = 0; size < text.size(); size += 7)
    EXPECT_NE(refusal_of(text.substr(0, size)), "accepted") << size;
  EXPECT_EQ(refusal_of(text), "accepted");
  EXPECT_NE(refusal_of("{\"version\": 1, " + text.substr(1)).find("stands twice"), std::string::npos);
}

std::string refusal_of(const std::vector<IdentityEntry>& run, const std::vector<IdentityEntry>& now) {
  RunHeader before = example();
  RunHeader after = example();
  before.identity = run;
  after.identity = now;
  try {
    check_identity(before, after, "runs/a");
    return "accepted";
  } catch (const UsageError& error) {
    return error.what();
  }
}

TEST(Identity, OtherValuesAreNamed) {
  EXPECT_EQ(refusal_of({{"a", "1"}}, {{"a", "1"}}), "accepted");
  EXPECT_NE(refusal_of({{"a", "1"}}, {{"a", "2"}}).find("runs/a: holds another run: a is 1 there, but 2 now"),
            std::string::npos);
  EXPECT_NE(refusal_of({{"a", "1"}}, {}).find("a is 1 there, but not set now"), std::string::npos);
  EXPECT_NE(refusal_of({}, {{"a", "1"}}).find("a is not set there, but 1 now"), std::string::npos);
}

TEST(Identity, ARecordWithoutTheTokenizerAgreesWithAny) {
  EXPECT_EQ(refusal_of({{"a", "1"}}, {{"a", "1"}, {tokenizer_key, "x"}}), "accepted");
  EXPECT_EQ(refusal_of({{tokenizer_key, "x"}}, {{tokenizer_key, "x"}}), "accepted");
  EXPECT_NE(refusal_of({{tokenizer_key, "y"}}, {{tokenizer_key, "x"}}).find("model.tokenizer is y there"),
            std::string::npos);
}

}  // namespace
}  // namespace mezzo
