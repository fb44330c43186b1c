#include "mezzo/train/replay.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "mezzo/backend/devices.h"
#include "mezzo/core/error.h"
#include "mezzo/io/hdf5_file.h"
#include "mezzo/model/family.h"
#include "scratch.h"

namespace mezzo {
namespace {

/// An optimizer with a state: m = m / 2 + c_0, theta = theta - lr m.
class Momentum final : public Optimizer {
 public:
  std::string_view kind() const override { return "another"; }
  nlohmann::ordered_json constants() const override { return nlohmann::ordered_json::object(); }
  std::vector<TrainableSpec> state(std::span<const TrainableSpec> trainables) const override {
    std::vector<TrainableSpec> specs(trainables.begin(), trainables.end());
    for (TrainableSpec& spec : specs) spec.name += ".momentum";
    return specs;
  }
  double walk_variance(double squares) const override { return 4.0 * squares; }
  void apply(const StepRecord& record, const RunNoise&, Backend& backend, Trainables& trainables,
             Trainables& state) const override {
    std::vector<float> values = read_values(backend, trainables);
    std::vector<float> momentum = read_values(backend, state);
    for (std::size_t i = 0; i < values.size(); ++i) {
      momentum[i] = 0.5f * momentum[i] + record.coefficients[0];
      values[i] -= record.learning_rate * momentum[i];
    }
    const auto write = [&](Trainables& to, const std::vector<float>& from) {
      backend.load(dense(to.values.data(), DType::f32, 1, to.count()), DType::f32, from.data(), false);
      backend.synchronize();
    };
    write(trainables, values);
    write(state, momentum);
  }
};

RunHeader header_of(std::shared_ptr<const Optimizer> optimizer) {
  RunHeader header;
  header.space = lora_space(read_description(MEZZO_TEST_DATA "/models/llama"), {.r = 1});
  header.optimizer = std::move(optimizer);
  return header;
}

TEST(Replay, RebuildsTheStateOfTheOptimizer) {
  const test::ScratchFolder scratch;
  const RunHeader header = header_of(std::make_shared<Momentum>());
  const std::string path = scratch / "trajectory";
  {
    RecordWriter writer = RecordWriter::create(path, {});
    for (std::uint64_t step = 0; step < 3; ++step) {
      writer.append(
          encode({.step = step, .learning_rate = 0.5f, .coefficients = {1.0f + static_cast<float>(step)}}));
    }
  }
  const RunState start = start_state({scratch.path()}, header);
  EXPECT_EQ(start.values, header.space->initial_values(0, ""));
  EXPECT_EQ(start.optimizer, std::vector<float>(start.values.size(), 0.0f));
  const RunState end = replayed(path, header, start, 3);
  EXPECT_EQ(end.step, 3u);
  // m: 1, 2.5, 4.25; each rounded sum is exact.
  EXPECT_EQ(end.optimizer, std::vector<float>(start.values.size(), 4.25f));
  for (std::size_t i = 0; i < start.values.size(); ++i) {
    EXPECT_EQ(end.values[i], start.values[i] - 0.5f - 1.25f - 2.125f) << i;
  }
  // From a state in between, which a snapshot would hold, it is the same.
  const RunState middle = replayed(path, header, start, 2);
  const RunState again = replayed(path, header, middle, 3);
  EXPECT_EQ(again.values, end.values);
  EXPECT_EQ(again.optimizer, end.optimizer);

  write_snapshot(scratch / "step-3.h5", header, end);
  const Hdf5Reader file(scratch / "step-3.h5");
  std::vector<std::string> names;
  for (const TrainableSpec& spec : header.optimizer_state()) names.push_back(spec.name);
  EXPECT_EQ(file.array_names("/optimizer"), names);
  // This program knows no such optimizer, and says so instead of leaving its state out.
  const std::string refusal =
      test::message_of<InputError>([&] { static_cast<void>(read_snapshot(scratch / "step-3.h5")); });
  EXPECT_NE(refusal.find("the optimizer \"another\" is unknown"), std::string::npos) << refusal;
}

// What an estimator keeps is that of the last record, or of the snapshot that there is.
TEST(Replay, TakesWhatTheEstimatorKeepsFromRecords) {
  const test::ScratchFolder scratch;
  RunHeader header = header_of(configure_optimizer({}));
  header.records = {.directions = 1, .probe_losses = 0, .estimator = 2};
  const std::string path = scratch / "trajectory";
  {
    RecordWriter writer = RecordWriter::create(path, {});
    for (std::uint64_t step = 0; step < 3; ++step) {
      writer.append(encode({.step = step,
                            .learning_rate = 0.5f,
                            .coefficients = {1.0f},
                            .probe_losses = {},
                            .estimator = {0.1 * static_cast<double>(step + 1), 7.0}}));
    }
  }
  const RunState start = start_state({scratch.path()}, header);
  EXPECT_EQ(start.estimator, (std::vector{0.0, 0.0}));
  const RunState end = replayed(path, header, start, 3);
  EXPECT_EQ(end.estimator, (std::vector{0.1 * 3.0, 7.0}));
  const RunState middle = replayed(path, header, start, 2);
  EXPECT_EQ(middle.estimator, (std::vector{0.1 * 2.0, 7.0}));
  EXPECT_EQ(replayed(path, header, middle, 2).estimator, middle.estimator);

  const std::string snapshot = scratch / "step-2.h5";
  write_snapshot(snapshot, header, middle);
  EXPECT_EQ(read_snapshot(snapshot).state.estimator, middle.estimator);
  EXPECT_EQ(read_own_snapshot(snapshot, &header, 2).state.estimator, middle.estimator);
  RunHeader other = header;
  other.records.estimator = 0;
  EXPECT_THROW(static_cast<void>(read_own_snapshot(snapshot, &other, 2)), InputError);
  RunState lacking = middle;
  lacking.estimator.clear();
  EXPECT_THROW(write_snapshot(scratch / "bad.h5", header, lacking), Error);
  RunState negative = middle;
  negative.estimator[1] = -1.0;
  write_snapshot(scratch / "bad.h5", header, negative);
  EXPECT_NE(test::message_of<InputError>([&] {
              static_cast<void>(read_snapshot(scratch / "bad.h5"));
            }).find("/estimator/state holds -1"),
            std::string::npos);
}

TEST(Replay, ASnapshotHoldsWhatItsHeaderNamesAndNothingElse) {
  const test::ScratchFolder scratch;
  const RunHeader header = header_of(configure_optimizer({}));
  const RunState state = start_state({scratch.path()}, header);
  const std::string good = scratch / "step-0.h5";
  write_snapshot(good, header, state);
  const Snapshot back = read_snapshot(good);
  EXPECT_EQ(back.state.values, state.values);
  EXPECT_TRUE(back.state.optimizer.empty());

  const auto refusal = [&](const std::string& run, const char* more) {
    const std::string path = scratch / "bad.h5";
    {
      Hdf5Writer writer(path);
      writer.create_group("/optimizer");
      const std::int64_t shape[] = {1};
      const float one = 1.0f;
      if (more != nullptr) writer.write_array(more, DType::f32, shape, std::as_bytes(std::span(&one, 1)));
      else writer.create_group("/trainables");
      writer.write_attribute("/meta", "version", std::uint64_t{1});
      writer.write_attribute("/meta", "step", std::uint64_t{0});
      writer.write_attribute("/meta", "run", run);
      writer.commit();
    }
    const std::string text = test::message_of<InputError>([&] { static_cast<void>(read_snapshot(path)); });
    std::filesystem::remove(path);
    return text;
  };
  EXPECT_NE(
      refusal(header.to_json(), "/trainables/other").find("bad.h5: the arrays in /trainables are not those"),
      std::string::npos);
  // A header may ask for any memory; a file of a few KiB does not hold it.
  nlohmann::ordered_json huge = nlohmann::ordered_json::parse(header.to_json());
  huge["trainables"] = {{"m.lora_A.weight", 1, 500'000'000'000}, {"m.lora_B.weight", 1, 1}};
  EXPECT_NE(refusal(huge.dump(), nullptr).find("trainables[0][2] is 500000000000"), std::string::npos);
  huge["trainables"] = {{"m.lora_A.weight", 1, 2'000'000'000}, {"m.lora_B.weight", 2'000'000'000, 1}};
  EXPECT_NE(refusal(huge.dump(), nullptr).find("which the file is too small to hold"), std::string::npos);
}

TEST(Replay, AHeaderThatAsksForMoreThanTheMemoryIsAnError) {
  const test::ScratchFolder scratch;
  RunHeader header = header_of(configure_optimizer({}));
  nlohmann::ordered_json json = nlohmann::ordered_json::parse(header.to_json());
  json["trainables"] = nlohmann::ordered_json::array();
  for (int i = 100; i < 500; ++i) {
    json["trainables"].push_back({fmt::format("m{}.lora_A.weight", i), 1, 2'000'000'000});
    json["trainables"].push_back({fmt::format("m{}.lora_B.weight", i), 1, 1});
  }
  header = RunHeader::from_json(json.dump(), "run");
  const std::string refusal =
      test::message_of<InputError>([&] { static_cast<void>(start_state({scratch.path()}, header)); });
  EXPECT_NE(refusal.find("more than this machine"), std::string::npos) << refusal;
}

}  // namespace
}  // namespace mezzo
