// The contracts of a run, seen from outside: the same bits on any number of ranks and threads, in any
// grouping, after any crash, and from the trajectory alone.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "file_size_limit.h"
#include "mezzo/io/record_file.h"
#include "mezzo/io/safetensors.h"
#include "program.h"

namespace mezzo::test {
namespace {

constexpr int steps = 12;

/// A run small enough to be done dozens of times: the embedded model, few examples, every interval used.
/// Plain gradient descent at a constant rate, unless `more` says otherwise.
std::string train(const std::string& output, const std::string& more = "", int last_step = steps) {
  std::string plain;
  for (const auto& [key, value] : {std::pair("zo.normalize", "none"),
                                   {"zo.directions", "3"},
                                   {"optimizer.learning_rate", "3e-3"},
                                   {"optimizer.lr_scheduler_type", "constant"}}) {
    if (more.find(fmt::format("{}=", key)) == more.npos) plain += fmt::format("{}={} ", key, value);
  }
  return fmt::format(
      "train configs/quickstart.yaml train.output_dir={} train.max_steps={} train.batch_size=6 "
      "train.batch_slices=2 train.save_steps=5 train.eval_steps=6 train.hash_steps=4 "
      "train.logging_steps=1 data.max_train_examples=40 data.validation=null {}{}",
      output, last_step, plain, more);
}

class RunTest : public ::testing::Test {
 protected:
  /// Trains to the end and returns the hash of the final trainables.
  std::string final_hash(const std::string& name, const std::string& more = "", const Launch& launch = {}) {
    const Outcome outcome = run(scratch_, train(scratch_ / name, more), launch);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(info(scratch_, scratch_ / name).at("step"), steps);
    return hash_of(scratch_, scratch_ / name);
  }

  /// A validation file that takes no time.
  std::string few_examples() {
    std::istringstream lines(read_all(MEZZO_SOURCE_DIR "/configs/quickstart/validation.jsonl"));
    std::string few;
    for (std::string line; few.size() < 2000 && std::getline(lines, line);) few += line + '\n';
    write_file(scratch_ / "few.jsonl", few);
    return scratch_ / "few.jsonl";
  }
  /// The number that stands behind `words` in a text.
  static std::optional<double> number_after(const std::string& text, const std::string& words) {
    const std::size_t begin = text.find(words);
    if (begin == std::string::npos) return std::nullopt;
    return std::stod(text.substr(begin + words.size()));
  }
  /// How many evaluations each step of a run has.
  std::map<int, int> evaluations(const std::string& name) {
    std::map<int, int> of_step;
    std::istringstream metrics(read_all(scratch_ / (name + "/metrics.jsonl")));
    for (std::string line; std::getline(metrics, line);) {
      const nlohmann::json values = nlohmann::json::parse(line);
      if (values.contains("eval_loss")) ++of_step[values.at("step").get<int>()];
    }
    return of_step;
  }

  ScratchFolder scratch_;
};

TEST_F(RunTest, SameBitsOnAnyRanksThreadsAndGroups) {
  const std::string expected = final_hash("one", "runtime.threads=1");
  EXPECT_EQ(final_hash("threads", "runtime.threads=2"), expected);
  EXPECT_EQ(final_hash("group1", "zo.probes_per_forward=1"), expected);
  EXPECT_EQ(final_hash("group4", "zo.probes_per_forward=4"), expected);
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI: only one rank was tried";
  EXPECT_EQ(final_hash("two", "", {.ranks = 2}), expected);
  EXPECT_EQ(final_hash("four", "zo.probes_per_forward=2", {.ranks = 4}), expected);
  // Another seed gives something else: the hashes are not constant.
  EXPECT_NE(final_hash("other", "train.seed=7"), expected);
}

// Shares that are no whole groups, pairs or slices, slices of other lengths, and more ranks than probes.
TEST_F(RunTest, SameBitsWhereRanksDivideNothingEvenly) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI: there is one rank";
  const std::string threads = "runtime.threads=1 ";
  const std::string sliced = final_hash("sliced", threads);  // 6 probes on 2 slices
  for (const int ranks : {3, 5, 7})
    EXPECT_EQ(final_hash(fmt::format("sliced-{}", ranks), threads, {.ranks = ranks}), sliced) << ranks;
  // 4 probes on 2 slices: with 9 ranks one idles.
  const std::string one_sided = threads + "zo.estimator=one_sided zo.probes_per_forward=3 ";
  const std::string alone = final_hash("one-sided", one_sided);
  for (const int ranks : {3, 9})
    EXPECT_EQ(final_hash(fmt::format("one-sided-{}", ranks), one_sided, {.ranks = ranks}), alone) << ranks;
}

// Haswell kernels change a row's bits with its place in a block, which newer ones do not.
TEST_F(RunTest, SameBitsOnHaswellKernels) {
  const std::string core = "OPENBLAS_CORETYPE=Haswell";
  const std::string expected = final_hash("one", "runtime.threads=1", {.environment = core});
  EXPECT_EQ(final_hash("group1", "zo.probes_per_forward=1 runtime.threads=2", {.environment = core}),
            expected);
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI: only one rank was tried";
  EXPECT_EQ(final_hash("two", "zo.probes_per_forward=5", {.ranks = 2, .environment = core}), expected);
}

TEST_F(RunTest, GenerateGoesOnWithAndWithoutTheAdapter) {
  final_hash("run", "optimizer.learning_rate=0.05");
  const auto text = [&](const std::string& more) {
    const Outcome outcome = run(
        scratch_, "generate configs/quickstart/llama2m --prompt \"The film was\" --max-new-tokens 8 " + more);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_TRUE(outcome.out.starts_with("The film was")) << outcome.out;
    return outcome.out;
  };
  const std::string with_adapter = "--adapter " + (scratch_ / "run/adapter");
  const std::string greedy = text(with_adapter);
  EXPECT_GT(greedy.size(), std::string("The film was\n").size());
  EXPECT_EQ(text(with_adapter), greedy);
  EXPECT_NE(text(""), greedy);
  EXPECT_EQ(text(with_adapter + " --temperature 1 --seed 3"),
            text(with_adapter + " --temperature 1 --seed 3"));
}

TEST_F(RunTest, AdapterSnapshotRunAndReplayAgree) {
  const std::string expected = final_hash("run");
  EXPECT_EQ(hash_of(scratch_, scratch_ / "run/adapter"), expected);
  EXPECT_EQ(hash_of(scratch_, scratch_ / "run/snapshots/step-12.h5"), expected);
  EXPECT_EQ(
      run(scratch_, fmt::format("replay {} --adapter {}", scratch_ / "run", scratch_ / "replayed")).status,
      0);
  EXPECT_EQ(hash_of(scratch_, scratch_ / "replayed"), expected);
  EXPECT_EQ(
      run(scratch_, fmt::format("export {} --adapter {}", scratch_ / "run", scratch_ / "exported")).status,
      0);
  EXPECT_EQ(hash_of(scratch_, scratch_ / "exported"), expected);
  // An earlier step is the snapshot of that step.
  EXPECT_EQ(run(scratch_, fmt::format("replay {} --step 10 --adapter {}", scratch_ / "run", scratch_ / "ten"))
                .status,
            0);
  EXPECT_EQ(hash_of(scratch_, scratch_ / "ten"), hash_of(scratch_, scratch_ / "run/snapshots/step-10.h5"));
  // The trajectory alone suffices.
  std::filesystem::remove_all(scratch_ / "run/snapshots");
  EXPECT_EQ(hash_of(scratch_, scratch_ / "run"), expected);
}

// The ratio is made of losses that every rank has, and a run that goes on writes it again.
TEST_F(RunTest, MetricsHaveSignalToNoise) {
  const auto ratios = [&](const std::string& name) {
    std::map<int, double> of_step;
    std::istringstream metrics(read_all(scratch_ / (name + "/metrics.jsonl")));
    for (std::string line; std::getline(metrics, line);) {
      const nlohmann::json values = nlohmann::json::parse(line);
      if (values.contains("signal_to_noise"))
        of_step[values.at("step").get<int>()] = values.at("signal_to_noise").get<double>();
    }
    return of_step;
  };
  final_hash("run");
  std::map<int, double> expected = ratios("run");
  ASSERT_EQ(expected.size(), static_cast<std::size_t>(steps));
  for (const auto& [step, ratio] : expected) EXPECT_GT(ratio, 0.0) << step;
  if (has_mpirun()) {
    final_hash("two", "", {.ranks = 2});
    EXPECT_EQ(ratios("two"), expected);
  }
  // The run goes back to its snapshot of step 5 and the records behind it.
  std::filesystem::remove_all(scratch_ / "run/adapter");
  for (const char* name : {"step-10.h5", "step-12.h5"})
    std::filesystem::remove(scratch_ / (std::string("run/snapshots/") + name));
  const std::string path = scratch_ / "run/trajectory";
  {
    RecordReader reader(path);
    for (int step = 0; step < 7; ++step) ASSERT_TRUE(reader.next());
    std::filesystem::resize_file(path, reader.position());
  }
  final_hash("run");
  EXPECT_EQ(ratios("run"), expected);
  // A batch of one slice does not tell.
  std::string whole = train(scratch_ / "whole");
  whole.replace(whole.find("train.batch_slices=2"), 20, "train.batch_slices=1");
  EXPECT_EQ(run(scratch_, whole).status, 0);
  EXPECT_TRUE(ratios("whole").empty());
}

// Against the weights of the merged model, whose rounding to fp32 is the tolerance.
TEST_F(RunTest, InfoTellsTheSizeOfTheUpdate) {
  const std::string base = "configs/quickstart/llama2m";
  const auto weights = [&](const std::string& folder, const std::string& module) {
    const Safetensors files = Safetensors::open(folder);
    const TensorInfo& tensor = files.at(module + ".weight");
    std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
    to_float(tensor, values);
    return values;
  };
  for (const std::string space : {"lora", "low_rank"}) {
    final_hash(space, "zo.space=" + space + " optimizer.learning_rate=0.01");
    const Outcome merged =
        run(scratch_, fmt::format("export {} --merged {}", scratch_ / space, scratch_ / (space + "-merged")));
    ASSERT_EQ(merged.status, 0) << merged.err;
    const Outcome json = run(scratch_, fmt::format("info {} --update-size --json", scratch_ / space));
    ASSERT_EQ(json.status, 0) << json.err;
    const nlohmann::json layers = nlohmann::json::parse(json.out).at("update_sizes");
    ASSERT_FALSE(layers.empty());
    std::string table = "layer  update/weight\n";
    for (std::size_t number = 0; number < layers.size(); ++number) {
      const nlohmann::json& layer = layers[number];
      EXPECT_EQ(layer.at("layer"), number);
      double moved = 0.0;  // sums of squares
      double all = 0.0;
      const nlohmann::json modules = layer.at("modules");
      for (auto module = modules.begin(); module != modules.end(); ++module) {
        const std::vector<float> before = weights(MEZZO_SOURCE_DIR "/" + base, module.key());
        const std::vector<float> after = weights(scratch_ / (space + "-merged"), module.key());
        double difference = 0.0;
        double size = 0.0;
        for (std::size_t i = 0; i < before.size(); ++i) {
          difference += std::pow(double{after[i]} - double{before[i]}, 2.0);
          size += std::pow(double{before[i]}, 2.0);
        }
        const double ratio = std::sqrt(difference / size);
        EXPECT_GT(ratio, 1e-5) << module.key();
        EXPECT_NEAR(module.value().get<double>(), ratio, 1e-2 * ratio) << module.key();
        moved += difference;
        all += size;
      }
      EXPECT_NEAR(layer.at("update_norm").get<double>(), std::sqrt(moved), 1e-2 * std::sqrt(moved));
      EXPECT_NEAR(layer.at("weight_norm").get<double>(), std::sqrt(all), 1e-6 * std::sqrt(all));
      const double ratio = layer.at("update_to_weight").get<double>();
      EXPECT_NEAR(ratio, std::sqrt(moved / all), 1e-2 * ratio);
      table += fmt::format("{:<5}  {:.3g}\n", number, ratio);
    }
    const Outcome text = run(scratch_, fmt::format("info {} --update-size", scratch_ / space));
    EXPECT_TRUE(text.out.ends_with(table)) << text.out;
  }
  // A run that began at a snapshot has moved since then.
  final_hash("later", "train.resume_from_checkpoint=" + (scratch_ / "lora/snapshots/step-12.h5") +
                          " optimizer.learning_rate=0.01");
  const Outcome later = run(scratch_, fmt::format("info {} --update-size --json", scratch_ / "later"));
  ASSERT_EQ(later.status, 0) << later.err;
  EXPECT_EQ(nlohmann::json::parse(later.out).at("update_sizes")[0].at("update_norm"), 0.0);

  EXPECT_FALSE(info(scratch_, scratch_ / "lora").contains("update_sizes"));
  for (const std::string& other : {scratch_ / "lora/snapshots/step-12.h5", scratch_ / "lora/adapter", base}) {
    const Outcome refused = run(scratch_, fmt::format("info {} --update-size", other));
    EXPECT_EQ(refused.status, 2) << refused.err;
    EXPECT_NE(refused.err.find("is not a run's folder"), std::string::npos) << refused.err;
  }
}

TEST_F(RunTest, RestsAfterItsEnd) {
  final_hash("run");
  const auto rests = [&](const std::string& more) {
    const Outcome again = run(scratch_, train(scratch_ / "run", more));
    EXPECT_EQ(again.status, 0) << again.err;
    return again.err.find("finished") != std::string::npos;
  };
  EXPECT_TRUE(rests(""));
  // A default that is written out is the same run.
  EXPECT_TRUE(rests("'lora.target_modules=[q_proj, v_proj]' data.max_length=1024"));
  const std::string metrics = read_all(scratch_ / "run/metrics.jsonl");
  write_file(scratch_ / "run/metrics.jsonl", metrics + "{\"step\": 1");
  EXPECT_TRUE(rests(""));
  EXPECT_EQ(read_all(scratch_ / "run/metrics.jsonl"), metrics);
}

TEST_F(RunTest, AnEndThatIsNotWholeIsMadeAgain) {
  const std::string expected = final_hash("run");
  const std::string snapshot = scratch_ / "run/snapshots/step-12.h5";
  const std::string adapter = scratch_ / "run/adapter";
  const auto spoil = [&](const std::function<void()>& harm) {
    harm();
    EXPECT_EQ(final_hash("run"), expected);
    EXPECT_EQ(hash_of(scratch_, snapshot), expected);
    EXPECT_EQ(hash_of(scratch_, adapter), expected);
  };
  spoil([&] { write_file(snapshot, "damaged"); });
  spoil([&] { std::filesystem::remove(adapter + "/adapter_config.json"); });
  spoil([&] {  // that of an earlier end, as a kill between the snapshot and the adapter leaves it
    run(scratch_, fmt::format("replay {} --step 5 --adapter {} --overwrite", scratch_ / "run", adapter));
    EXPECT_NE(hash_of(scratch_, adapter), expected);
  });
  // A system that dies can leave a trajectory without a byte: the run cannot go on, and what is left of it
  // goes only when that is asked for.
  std::filesystem::remove_all(scratch_ / "run/snapshots");
  write_file(scratch_ / "run/trajectory", "");
  EXPECT_EQ(run(scratch_, train(scratch_ / "run")).status, 2);
  EXPECT_EQ(hash_of(scratch_, adapter), expected);
  EXPECT_EQ(final_hash("run", "--overwrite"), expected);
}

/// What a job says of which rank 1 is started by `command` ("$@" are mezzo's arguments), rank 0 as usual.
Outcome with_other_rank(const ScratchFolder& scratch, const std::string& command) {
  const std::string program = scratch / "rank.sh";
  write_file(program, fmt::format("#!/bin/sh\n[ $OMPI_COMM_WORLD_RANK = 0 ] && exec {} \"$@\"\n{}\n",
                                  MEZZO_PROGRAM, command));
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  return run(scratch, train(scratch / "run"), {.ranks = 2, .program = program});
}

TEST_F(RunTest, RanksThatDoNotAgreeAreNamedBeforeTheyLoad) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  const Outcome config = with_other_rank(scratch_, fmt::format("exec {} \"$@\" train.seed=7", MEZZO_PROGRAM));
  EXPECT_EQ(config.status, 2) << config.err;
  ASSERT_EQ(config.errors().size(), 1u) << config.err;
  EXPECT_NE(config.errors()[0].find("the resolved config of rank 1 on "), std::string::npos) << config.err;
  EXPECT_NE(config.errors()[0].find("found seed: 7, expected seed: 42"), std::string::npos) << config.err;

  // The same program to all appearance: a byte behind the executable's end changes nothing that it does.
  const Outcome binary = with_other_rank(scratch_, fmt::format("cp {0} {1}; printf x >> {1}; exec {1} \"$@\"",
                                                               MEZZO_PROGRAM, scratch_ / "other"));
  EXPECT_EQ(binary.status, 2) << binary.err;
  ASSERT_EQ(binary.errors().size(), 1u) << binary.err;
  EXPECT_NE(binary.errors()[0].find("the SHA-256 of the mezzo executable of rank 1 on "), std::string::npos)
      << binary.err;
  EXPECT_EQ(binary.err.find("loaded"), std::string::npos) << binary.err;
}

TEST_F(RunTest, OtherIdentityIsRefused) {
  final_hash("run");
  const std::string before = read_all(scratch_ / "run/trajectory");
  const Outcome other = run(scratch_, train(scratch_ / "run", "zo.epsilon=0.02"));
  EXPECT_EQ(other.status, 2);
  ASSERT_EQ(other.errors().size(), 1u) << other.err;
  EXPECT_NE(other.errors()[0].find("zo.epsilon is 0.01 there, but 0.02 now"), std::string::npos) << other.err;
  EXPECT_EQ(read_all(scratch_ / "run/trajectory"), before);
}

TEST_F(RunTest, AnotherTokenizerIsAnotherRun) {
  std::filesystem::copy(MEZZO_SOURCE_DIR "/configs/quickstart/llama2m", scratch_ / "model",
                        std::filesystem::copy_options::recursive);
  const std::string with_model = "model.path=" + (scratch_ / "model");
  const std::string expected = final_hash("run", with_model);

  // Another layout of the file is the same tokenizer.
  nlohmann::json tokenizer = nlohmann::json::parse(read_all(scratch_ / "model/tokenizer.json"));
  scratch_.write("model/tokenizer.json", tokenizer.dump(2));
  const Outcome same = run(scratch_, train(scratch_ / "run", with_model));
  EXPECT_EQ(same.status, 0) << same.err;

  tokenizer["pre_tokenizer"]["add_prefix_space"] = true;
  scratch_.write("model/tokenizer.json", tokenizer.dump());
  const Outcome other = run(scratch_, train(scratch_ / "run", with_model));
  EXPECT_EQ(other.status, 2) << other.err;
  ASSERT_EQ(other.errors().size(), 1u) << other.err;
  EXPECT_NE(other.errors()[0].find("model.tokenizer is sha256:"), std::string::npos) << other.err;

  // The record of a version that did not know of it goes on, and says so.
  const RecordReader with_tokenizer(scratch_ / "run/trajectory");
  const std::span<const std::byte> header = with_tokenizer.header();
  nlohmann::json json =
      nlohmann::json::parse(std::string(reinterpret_cast<const char*>(header.data()), header.size()));
  nlohmann::json& identity = json["identity"];
  const std::size_t entries = identity.size();
  std::erase_if(identity.get_ref<nlohmann::json::array_t&>(),
                [](const nlohmann::json& entry) { return entry[0] == "model.tokenizer"; });
  ASSERT_EQ(identity.size(), entries - 1);
  json["fingerprint"]["tokenizer_patterns"] = "Oniguruma 1.0";
  std::filesystem::rename(scratch_ / "run/trajectory", scratch_ / "trajectory");
  std::filesystem::remove_all(scratch_ / "run/adapter");  // so that the run has something left to do
  const std::string text = json.dump();
  RecordWriter writer = RecordWriter::create(scratch_ / "run/trajectory", std::as_bytes(std::span(text)));
  RecordReader records(scratch_ / "trajectory");
  while (const auto payload = records.next()) writer.append(*payload);
  const Outcome old = run(scratch_, train(scratch_ / "run", with_model));
  EXPECT_EQ(old.status, 0) << old.err;
  EXPECT_NE(old.err.find("did not record its tokenizer"), std::string::npos) << old.err;
  EXPECT_NE(old.err.find("the tokenizer ran with Oniguruma 1.0 when the run began"), std::string::npos)
      << old.err;
  EXPECT_EQ(hash_of(scratch_, scratch_ / "run"), expected);
}

TEST_F(RunTest, SnapshotOfAnotherRunBeginsThisOne) {
  const std::string expected = final_hash("first");
  const std::string from = "train.resume_from_checkpoint=" + (scratch_ / "first/snapshots/step-5.h5");
  EXPECT_EQ(final_hash("second", from), expected);
  // The same command once more finds its own run; another snapshot would begin another one.
  const Outcome again = run(scratch_, train(scratch_ / "second", from));
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_NE(again.err.find("has finished its 12 steps"), std::string::npos) << again.err;
  const Outcome other =
      run(scratch_, train(scratch_ / "second",
                          "train.resume_from_checkpoint=" + (scratch_ / "first/snapshots/step-10.h5")));
  EXPECT_EQ(other.status, 2) << other.err;
  // It stands alone from then on.
  std::filesystem::remove_all(scratch_ / "first");
  EXPECT_EQ(
      run(scratch_, fmt::format("replay {} --step 5 --adapter {}", scratch_ / "second", scratch_ / "five"))
          .status,
      0);
  EXPECT_EQ(hash_of(scratch_, scratch_ / "five"), hash_of(scratch_, scratch_ / "second/start.h5"));
  EXPECT_EQ(hash_of(scratch_, scratch_ / "second"), expected);
}

TEST_F(RunTest, OverwriteReplacesWhatCannotBeRead) {
  const std::string expected = final_hash("run");
  std::string trajectory = read_all(scratch_ / "run/trajectory");
  trajectory[40] ^= 1;
  write_file(scratch_ / "run/trajectory", trajectory);
  std::filesystem::remove_all(scratch_ / "run/snapshots");
  EXPECT_EQ(run(scratch_, train(scratch_ / "run")).status, 1);
  EXPECT_EQ(final_hash("run", "--overwrite"), expected);
}

TEST_F(RunTest, GoingBackNeedsOverwrite) {
  const std::string expected = final_hash("run");
  const std::string before = read_all(scratch_ / "run/trajectory");
  const std::string back = "train.resume_from_checkpoint=" + (scratch_ / "run/snapshots/step-5.h5");
  const Outcome refused = run(scratch_, train(scratch_ / "run", back));
  EXPECT_EQ(refused.status, 2);
  ASSERT_EQ(refused.errors().size(), 1u) << refused.err;
  EXPECT_NE(refused.errors()[0].find("going back to step 5 needs --overwrite"), std::string::npos)
      << refused.err;
  EXPECT_EQ(read_all(scratch_ / "run/trajectory"), before);
  EXPECT_EQ(final_hash("run", back + " --overwrite"), expected);
  EXPECT_EQ(read_all(scratch_ / "run/trajectory"), before);
}

TEST_F(RunTest, KilledAtAnyMomentItGoesOnToTheSameBits) {
  const std::string expected = final_hash("whole");
  // Moments from the start to the end of a run, as long as it takes here.
  double length[3] = {};
  for (const int ranks : {1, 2}) {
    if (ranks == 2 && !has_mpirun()) continue;
    length[ranks] = run(scratch_, train(scratch_ / fmt::format("timed-{}", ranks)), {.ranks = ranks}).seconds;
  }
  for (int kill = 0; kill < 10; ++kill) {
    const std::string name = fmt::format("killed-{}", kill);
    const int ranks = has_mpirun() ? 1 + kill % 2 : 1;
    const double moment = length[ranks] * (kill + 1) / 11.0;
    run(scratch_, train(scratch_ / name), {.ranks = ranks, .kill_after = moment});
    const int others = has_mpirun() ? 3 - ranks : 1;
    EXPECT_EQ(final_hash(name, "", {.ranks = others}), expected) << "killed after " << moment << " s";
  }
}

TEST_F(RunTest, DamagedSnapshotIsNamedAndPassedOver) {
  const std::string expected = final_hash("run");
  // Back to the moment before the end: the last snapshot and the adapter are gone, the newest left is
  // damaged.
  std::filesystem::remove_all(scratch_ / "run/adapter");
  std::filesystem::remove(scratch_ / "run/snapshots/step-12.h5");
  std::string snapshot = read_all(scratch_ / "run/snapshots/step-10.h5");
  snapshot[snapshot.size() / 2] ^= 0x10;
  write_file(scratch_ / "run/snapshots/step-10.h5", snapshot);
  const Outcome again = run(scratch_, train(scratch_ / "run"));
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_NE(again.err.find("step-10.h5"), std::string::npos) << again.err;
  EXPECT_EQ(hash_of(scratch_, scratch_ / "run/adapter"), expected);
}

TEST_F(RunTest, TornTrajectoryAndMetricsAreCut) {
  const std::string expected = final_hash("run");
  std::filesystem::remove_all(scratch_ / "run/adapter");
  std::filesystem::remove_all(scratch_ / "run/snapshots");
  std::string trajectory = read_all(scratch_ / "run/trajectory");
  write_file(scratch_ / "run/trajectory", trajectory.substr(0, trajectory.size() - 5));
  const std::string metrics = scratch_ / "run/metrics.jsonl";
  write_file(metrics, read_all(metrics) + "no JSON\n{\"step\": 1");
  const Outcome again = run(scratch_, train(scratch_ / "run"));
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_NE(again.err.find("mezzo: warning: "), std::string::npos) << again.err;
  EXPECT_NE(again.err.find("mezzo: warning: " + metrics + ": 2 lines removed"), std::string::npos)
      << again.err;
  EXPECT_EQ(read_all(metrics).find("no JSON"), std::string::npos);
  EXPECT_EQ(hash_of(scratch_, scratch_ / "run/adapter"), expected);
  EXPECT_EQ(read_all(scratch_ / "run/trajectory"), trajectory);
}

TEST_F(RunTest, FullDiskIsOneErrorAndTheRunGoesOn) {
  const std::string expected = final_hash("whole");
  {
    const FileSizeLimit limit(40'000);  // the trajectory fits, a snapshot does not
    const Outcome full = run(scratch_, train(scratch_ / "run"));
    EXPECT_EQ(full.status, 1) << full.err;
    ASSERT_EQ(full.errors().size(), 1u) << full.err;
    EXPECT_NE(full.errors()[0].find("step-5.h5: cannot flush the file: "), std::string::npos) << full.err;
  }
  EXPECT_EQ(final_hash("run"), expected);
}

TEST_F(RunTest, TermEndsAfterTheStep) {
  const std::string command = "train configs/quickstart.yaml train.output_dir=" + (scratch_ / "run") +
                              " train.max_steps=100000 data.validation=null runtime.threads=1 "
                              "zo.directions=1 zo.normalize=none train.logging_steps=1 "
                              "optimizer.lr_scheduler_type=constant";
  const Outcome stopped = run(
      scratch_, command, {.kill_after = 0.2, .signal = SIGTERM, .kill_once = scratch_ / "run/metrics.jsonl"});
  EXPECT_EQ(stopped.status, 75) << stopped.err;
  const auto step = info(scratch_, scratch_ / "run").at("step").get<int>();
  EXPECT_GT(step, 0);
  EXPECT_TRUE(std::filesystem::exists(scratch_ / fmt::format("run/snapshots/step-{}.h5", step)));
  // The run that goes on says what was this time and what in all.
  const std::optional<double> before =
      number_after(stopped.err, fmt::format("stopped after step {}: {} steps in ", step, step));
  ASSERT_TRUE(before) << stopped.err;
  const std::string first(command, 0, command.find("train.max_steps=100000"));
  const std::string others(command, command.find("data.validation"));
  const Outcome done = run(scratch_, fmt::format("{} train.max_steps={} {}", first, step + 2, others));
  EXPECT_EQ(done.status, 0) << done.err;
  const std::optional<double> now = number_after(done.err, "done: 2 steps in ");
  const std::optional<double> in_all = number_after(done.err, fmt::format(" s ({} in all, ", step + 2));
  ASSERT_TRUE(now && in_all) << done.err;
  EXPECT_NEAR(*in_all, *now + *before, 0.2) << stopped.err << done.err;
}

// Killed in its last evaluation a run has all of its steps, but neither their evaluation nor a snapshot.
TEST_F(RunTest, TheLastEvaluationIsMadeUpFor) {
  const std::string data = few_examples();
  for (const int interval : {6, 5}) {  // which divides the steps, and which does not
    const std::string name = fmt::format("every-{}", interval);
    std::string command = train(scratch_ / name);
    for (const auto& [old, text] : {std::pair("data.validation=null", "data.validation=" + data),
                                    std::pair("eval_steps=6", fmt::format("eval_steps={}", interval))}) {
      command.replace(command.find(old), std::string_view(old).size(), text);
    }
    const auto train_to_the_end = [&] {
      const Outcome outcome = run(scratch_, command);
      EXPECT_EQ(outcome.status, 0) << outcome.err;
      return hash_of(scratch_, scratch_ / name);
    };
    const std::string expected = train_to_the_end();
    const std::map<int, int> all = evaluations(name);
    EXPECT_EQ(all.at(steps), 1);
    const std::string adapter = hash_of(scratch_, scratch_ / (name + "/adapter"));
    std::filesystem::remove_all(scratch_ / (name + "/adapter"));
    std::filesystem::remove(scratch_ / (name + "/snapshots/step-12.h5"));
    const std::string metrics = scratch_ / (name + "/metrics.jsonl");
    std::string lines = read_all(metrics);
    lines.erase(lines.rfind('\n', lines.size() - 2) + 1);
    write_file(metrics, lines);
    EXPECT_FALSE(evaluations(name).contains(steps));
    EXPECT_EQ(train_to_the_end(), expected);
    EXPECT_EQ(evaluations(name), all);
    EXPECT_EQ(hash_of(scratch_, scratch_ / (name + "/adapter")), adapter);
  }
}

TEST_F(RunTest, AStopLeavesTheEvaluationToTheRunThatGoesOn) {
  const std::string data = few_examples();
  const auto command = [&](int max_steps) {
    return fmt::format(
        "train configs/quickstart.yaml train.output_dir={} train.max_steps={} data.validation={} "
        "runtime.threads=1 zo.directions=1 zo.normalize=none train.logging_steps=1 train.eval_steps=1 "
        "optimizer.lr_scheduler_type=constant",
        scratch_ / "run", max_steps, data);
  };
  const Outcome stopped =
      run(scratch_, command(100000),
          {.kill_after = 0.2, .signal = SIGTERM, .kill_once = scratch_ / "run/metrics.jsonl"});
  EXPECT_EQ(stopped.status, 75) << stopped.err;
  const auto step = info(scratch_, scratch_ / "run").at("step").get<int>();
  std::map<int, int> expected;
  for (int i = 0; i < step; ++i) expected[i] = 1;
  EXPECT_EQ(evaluations("run"), expected);
  const Outcome resumed = run(scratch_, command(step + 1));
  EXPECT_EQ(resumed.status, 0) << resumed.err;
  expected[step] = expected[step + 1] = 1;
  EXPECT_EQ(evaluations("run"), expected);
}

TEST_F(RunTest, AdapterAsStartIsCopied) {
  const std::string first = final_hash("first");
  const std::string more = fmt::format("lora.adapter={} train.seed=3", scratch_ / "first/adapter");
  const std::string second = final_hash("second", more);
  EXPECT_NE(second, first);
  EXPECT_EQ(hash_of(scratch_, scratch_ / "second/initial_adapter"), first);
  EXPECT_EQ(
      run(scratch_, fmt::format("replay {} --step 0 --adapter {}", scratch_ / "second", scratch_ / "zero"))
          .status,
      0);
  EXPECT_EQ(hash_of(scratch_, scratch_ / "zero"), first);
}

TEST_F(RunTest, OtherNoiseAndEstimator) {
  const std::string base = final_hash("base");
  const std::string signs = final_hash("signs", "zo.noise=rademacher");
  const std::string one_sided = final_hash("one-sided", "zo.estimator=one_sided optimizer.weight_decay=0.1");
  const std::string zscore = final_hash("zscore", "zo.normalize=zscore", {.ranks = has_mpirun() ? 2 : 1});
  EXPECT_NE(signs, base);
  EXPECT_NE(one_sided, base);
  EXPECT_NE(zscore, base);
  EXPECT_EQ(final_hash("zscore-alone", "zo.normalize=zscore zo.probes_per_forward=1"), zscore);
  for (const char* name : {"signs", "one-sided", "zscore"}) {
    const std::string target = scratch_ / fmt::format("{}-replayed", name);
    EXPECT_EQ(run(scratch_, fmt::format("replay {} --adapter {}", scratch_ / name, target)).status, 0);
    EXPECT_EQ(hash_of(scratch_, target), hash_of(scratch_, scratch_ / name));
  }
}

// What a rule keeps is the same on any number of ranks, from a snapshot and from the trajectory alone.
TEST_F(RunTest, EveryUpdateRuleGoesOnAndIsReplayedToTheSameBits) {
  const std::pair<const char*, const char*> rules[] = {
      {"momentum", "optimizer.type=momentum optimizer.nesterov=true optimizer.clip=0.5"},
      {"sign", "optimizer.type=sign optimizer.anchor_decay=0.5 optimizer.weight_decay=0.1"},
      {"adam", "optimizer.type=adam optimizer.betas=[0.8,0.9]"},
      {"scalar", "optimizer.type=adam optimizer.second_moment=scalar optimizer.anchor_decay=0.5"}};
  std::set<std::string> seen;
  for (const auto& [name, options] : rules) {
    const std::string expected = final_hash(name, options);
    EXPECT_TRUE(seen.insert(expected).second) << name << " does as another rule does";
    const std::string stopped = fmt::format("{}-stopped", name);
    EXPECT_EQ(run(scratch_, train(scratch_ / stopped, options, 7), {.ranks = has_mpirun() ? 2 : 1}).status,
              0);
    EXPECT_EQ(final_hash(stopped, options), expected) << name;
    std::filesystem::remove_all(scratch_ / stopped + "/snapshots");
    EXPECT_EQ(hash_of(scratch_, scratch_ / stopped), expected) << name;
  }
}

// So is what an estimator keeps, whose means decide the steps that a run goes on with, and so are directions
// that are kept, in the middle of whose steps snapshot 5 and step 9 lie.
TEST_F(RunTest, RunningMeansAndKeptDirectionsGoOnAndAreReplayedToTheSameBits) {
  const std::pair<const char*, const char*> runs[] = {
      {"kept", "zo.resample_steps=4 zo.normalize=zscore optimizer.learning_rate=3e-2"},
      {"limited", "zo.directions=1 zo.normalize=zscore optimizer.learning_rate=3e-2"},
      {"sided", "zo.directions=1 zo.estimator=one_sided zo.normalize=std"},
      {"three", "zo.normalize=zscore zo.normalize_beta=0.75 zo.step_limit=null optimizer.type=momentum"}};
  const int others = has_mpirun() ? 2 : 1;
  for (const auto& [name, options] : runs) {
    const std::string expected = final_hash(name, options);
    const auto copy = [&](const char* to) {
      std::string folder = scratch_ / fmt::format("{}-{}", name, to);
      std::filesystem::copy(scratch_ / name, folder, std::filesystem::copy_options::recursive);
      return folder;
    };
    EXPECT_EQ(final_hash(fmt::format("{}-ranks", name), options, {.ranks = others}), expected) << name;
    // Back to the snapshot of step 5, and on from the records behind it.
    const std::string torn = copy("torn");
    for (const char* later : {"/snapshots/step-10.h5", "/snapshots/step-12.h5"})
      std::filesystem::remove(torn + later);
    std::filesystem::resize_file(torn + "/trajectory",
                                 std::filesystem::file_size(torn + "/trajectory") - 200);
    const int left = info(scratch_, torn).at("step").get<int>();
    EXPECT_GT(left, 5) << name;
    EXPECT_LT(left, 10) << name;
    EXPECT_EQ(final_hash(fmt::format("{}-torn", name), options, {.ranks = others}), expected) << name;
    // From the snapshot alone: it begins another run.
    EXPECT_EQ(
        final_hash(fmt::format("{}-begun", name), fmt::format("{} train.resume_from_checkpoint={}", options,
                                                              scratch_ / name + "/snapshots/step-5.h5")),
        expected)
        << name;
    // A kill, wherever it comes.
    const std::string killed = fmt::format("{}-killed", name);
    run(scratch_, train(scratch_ / killed, options),
        {.ranks = others, .kill_after = 0.01, .kill_once = scratch_ / killed + "/metrics.jsonl"});
    EXPECT_EQ(final_hash(killed, options), expected) << name;
    // The records alone.
    const std::string alone = copy("alone");
    std::filesystem::remove_all(alone + "/snapshots");
    std::filesystem::remove_all(alone + "/adapter");
    EXPECT_EQ(hash_of(scratch_, alone), expected) << name;
  }
}

// max_steps decides the limit of each step, also under a constant schedule.
TEST_F(RunTest, AStepLimitIsOfAllSteps) {
  const std::string constant = "zo.step_limit=0.01 optimizer.lr_scheduler_type=constant";
  EXPECT_EQ(run(scratch_, train(scratch_ / "constant", constant, 2)).status, 0);
  const Outcome longer = run(scratch_, train(scratch_ / "constant", constant, 3));
  EXPECT_EQ(longer.status, 2);
  EXPECT_NE(longer.err.find("train.max_steps is 2 there"), std::string::npos) << longer.err;
}

// Whole weights along noise of low rank or of each element, held in fp32 or bf16: the same bits on ranks,
// from a snapshot and from the trajectory alone; the result is a model, and so is what a replay leaves.
TEST_F(RunTest, WholeWeightsGoOnAndAreReplayedToTheSameBits) {
  const std::string low_rank =
      "zo.space=low_rank optimizer.learning_rate=1e-3 optimizer.lr_scheduler_type=constant ";
  std::set<std::string> seen;
  for (const auto& [name, more] :
       {std::pair("one", low_rank + "zo.rank=1"),
        {"two", low_rank + "zo.rank=2 zo.target_modules=[q_proj,down_proj] optimizer.type=momentum"},
        {"dense", std::string("zo.space=dense zo.epsilon=1e-3")},
        {"bf16", std::string("zo.space=dense optimizer.master=bf16 optimizer.anchor_decay=0.1")},
        {"vectors", std::string("zo.space=vectors optimizer.type=adam")}}) {
    const std::string options = more;
    const std::string expected = final_hash(name, options);
    EXPECT_TRUE(seen.insert(expected).second);
    const std::string stopped = fmt::format("{}-stopped", name);
    EXPECT_EQ(run(scratch_, train(scratch_ / stopped, options, 7), {.ranks = has_mpirun() ? 2 : 1}).status,
              0);
    EXPECT_EQ(final_hash(stopped, options), expected) << name;
    const Outcome again = run(scratch_, train(scratch_ / stopped, options));
    EXPECT_NE(again.err.find("finished"), std::string::npos) << again.err;
    std::filesystem::remove_all(scratch_ / stopped + "/snapshots");
    EXPECT_EQ(hash_of(scratch_, scratch_ / stopped), expected) << name;
  }
  const std::string weights = "/model.safetensors";
  const auto replayed = [&](const std::string& name) {
    const std::string to = scratch_ / (name + "-replayed");
    EXPECT_EQ(run(scratch_, fmt::format("replay {} --merged {}", scratch_ / name, to)).status, 0);
    return read_all(to + weights);
  };
  const std::string trained = read_all(scratch_ / "one/model" + weights);
  EXPECT_FALSE(trained.empty());
  EXPECT_EQ(replayed("one"), trained);
  EXPECT_EQ(replayed("bf16"), read_all(scratch_ / "bf16/model" + weights));
  EXPECT_EQ(run(scratch_, fmt::format("export {} --merged {}", scratch_ / "one", scratch_ / "merged")).status,
            0);
  EXPECT_EQ(read_all(scratch_ / "merged" + weights), trained);
  const Outcome adapter =
      run(scratch_, fmt::format("export {} --adapter {}", scratch_ / "one", scratch_ / "adapter"));
  EXPECT_EQ(adapter.status, 2);
  EXPECT_NE(adapter.err.find("low_rank trains whole weights"), std::string::npos) << adapter.err;
  // The model by itself, and the base model under the snapshot, answer alike.
  const auto loss = [&](const std::string& model, const std::string& more_arguments) {
    const Outcome outcome =
        run(scratch_, fmt::format("eval configs/quickstart.yaml data.validation={} model.path={} {} --json",
                                  few_examples(), model, more_arguments));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out).at("loss").get<double>();
  };
  const double of_model = loss(scratch_ / "one/model", "");
  EXPECT_NEAR(of_model,
              loss("configs/quickstart/llama2m",
                   fmt::format("--snapshot {}/one/snapshots/step-{}.h5", scratch_.path(), steps)),
              1e-6);
  EXPECT_NE(of_model, loss("configs/quickstart/llama2m", ""));
  // A key of the other space is refused.
  const Outcome refused = run(scratch_, train(scratch_ / "refused", low_rank + "lora.r=4"));
  EXPECT_EQ(refused.status, 2);
  EXPECT_NE(refused.err.find("lora.r: is of zo.space lora, found zo.space low_rank"), std::string::npos)
      << refused.err;
}

// All 120 probes at once take 270 MiB: a forward has as many as the process is left memory for.
TEST_F(RunTest, UlimitBoundsThePlan) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the address sanitizer's own memory counts";
#endif
  const std::string program = scratch_ / "limited.sh";
  // OpenBLAS starts a thread a core before main: two, whatever this machine has.
  write_file(program, fmt::format("#!/bin/bash\nexport OMP_NUM_THREADS=2\nulimit -d 500000\nexec {} \"$@\"\n",
                                  MEZZO_PROGRAM));
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  const Outcome outcome = run(
      scratch_,
      fmt::format("train configs/quickstart.yaml train.output_dir={} train.max_steps=1 data.validation=null "
                  "train.batch_size=64 zo.directions=60 runtime.threads=1 runtime.device=cpu",
                  scratch_ / "run"),
      {.program = program});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  // The rank's row ends with the probes a forward and "6 MiB weights, ...".
  const std::string weights = " 6 MiB weights";
  const std::size_t end = outcome.err.find(weights);
  ASSERT_NE(end, std::string::npos) << outcome.err;
  const std::string row = outcome.err.substr(0, outcome.err.find_last_not_of(' ', end) + 1);
  EXPECT_LT(std::stoi(row.substr(row.rfind(' ') + 1)), 120) << outcome.err;
}

}  // namespace
}  // namespace mezzo::test
