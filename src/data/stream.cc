#include "mezzo/data/stream.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/shuffle.h"

namespace mezzo {

namespace {

// Shuffles of their own, apart from every epoch's.
constexpr std::uint64_t choice_epoch = ~std::uint64_t{0};
constexpr std::uint64_t held_out_epoch = ~std::uint64_t{1};

std::size_t count_of(const std::vector<ExampleFile>& files) {
  std::size_t count = 0;
  for (const ExampleFile& file : files) count += file.examples.size();
  return count;
}

/// The examples that a shuffle of all puts first, in its order, file by file.
void keep_first(std::vector<ExampleFile>& files, std::uint64_t data_seed, std::size_t limit) {
  const std::size_t count = count_of(files);
  if (limit == 0 || limit >= count) return;
  const std::vector<std::uint32_t> order = shuffled_order(data_seed, choice_epoch, count);
  std::vector<std::vector<Example>> kept(files.size());
  for (std::size_t i = 0; i < limit; ++i) {
    std::size_t place = order[i];
    std::size_t f = 0;
    for (; place >= files[f].examples.size(); ++f) place -= files[f].examples.size();
    kept[f].push_back(std::move(files[f].examples[place]));
  }
  for (std::size_t f = 0; f < files.size(); ++f) files[f].examples = std::move(kept[f]);
}

std::vector<double> weights_of(const std::vector<ExampleFile>& files) {
  std::vector<double> weights;
  for (const ExampleFile& file : files) weights.push_back(file.weight);
  return weights;
}

}  // namespace

std::vector<Example> hold_out(std::vector<ExampleFile>& files, double fraction, std::uint64_t data_seed) {
  const std::size_t count = count_of(files);
  if (count < 2) {
    throw UsageError("data.validation_fraction: found {} training examples, expected two at least", count);
  }
  const auto wanted = static_cast<std::size_t>(std::llround(fraction * static_cast<double>(count)));
  const std::vector<std::uint32_t> order = shuffled_order(data_seed, held_out_epoch, count);
  std::vector<bool> is_held_out(count);
  for (std::size_t i = 0; i < std::clamp<std::size_t>(wanted, 1, count - 1); ++i)
    is_held_out[order[i]] = true;
  std::vector<Example> held_out;
  std::size_t place = 0;
  for (ExampleFile& file : files) {
    std::vector<Example> rest;
    for (Example& example : file.examples)
      (is_held_out[place++] ? held_out : rest).push_back(std::move(example));
    file.examples = std::move(rest);
  }
  return held_out;
}

ExampleStream::ExampleStream(std::vector<ExampleFile> files, std::uint64_t data_seed, std::int64_t limit)
    : mixture_(weights_of(files), data_seed) {
  keep_first(files, data_seed, static_cast<std::size_t>(std::max<std::int64_t>(limit, 0)));
  for (std::size_t f = 0; f < files.size(); ++f) {
    std::vector<Example>& examples = files[f].examples;
    if (examples.empty()) {
      throw UsageError("data.train: {} is left without an example ({} are kept of all files)", files[f].path,
                       count_of(files));
    }
    const std::uint64_t seed = files.size() == 1 ? data_seed : data_file_seed(data_seed, 1 + f);
    files_.push_back(
        {.path = files[f].path, .first = examples_.size(), .count = examples.size(), .seed = seed});
    if (examples_.empty()) {
      examples_ = std::move(examples);
    } else {
      std::ranges::move(examples, std::back_inserter(examples_));
    }
  }
}

ExampleStream::ExampleStream(std::vector<Example> examples, std::uint64_t data_seed, std::int64_t limit)
    : ExampleStream(std::vector<ExampleFile>{{.path = "", .examples = std::move(examples)}}, data_seed,
                    limit) {}

std::vector<const Example*> ExampleStream::at(std::uint64_t first, std::int64_t count) const {
  std::vector<const Example*> batch;
  for (std::uint64_t i = first; i < first + static_cast<std::uint64_t>(count); ++i) {
    const Mixture::Draw draw = mixture_.at(i);
    const File& file = files_[draw.file];
    const std::uint64_t epoch = draw.index / file.count;
    if (epoch != file.cached_epoch || file.order.empty()) {
      file.order = shuffled_order(file.seed, epoch, file.count);
      file.cached_epoch = epoch;
    }
    batch.push_back(&examples_[file.first + file.order[draw.index % file.count]]);
  }
  return batch;
}

std::vector<ExampleStream::Part> ExampleStream::parts() const {
  std::vector<Part> parts;
  for (std::size_t f = 0; f < files_.size(); ++f) {
    const double share = static_cast<double>(mixture_.share(f)) / Mixture::block;
    parts.push_back({files_[f].path, files_[f].first, files_[f].count, share});
  }
  return parts;
}

std::int64_t ExampleStream::shortest_epoch() const {
  std::uint64_t shortest = examples_.size();
  for (const File& file : files_) shortest = std::min(shortest, file.count);
  return static_cast<std::int64_t>(shortest);
}

}  // namespace mezzo
