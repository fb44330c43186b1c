#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mezzo/data/example.h"
#include "mezzo/data/mixture.h"

namespace mezzo {

/// The examples of a training file.
struct ExampleFile {
  std::string path;  ///< for messages
  std::vector<Example> examples;
  double weight = 1;
};

/// Takes the part `fraction` of all files' examples out of them, one at least and not all: the first of a
/// shuffle of all by data seed, in the order in which they stood. A pure function of (data seed, number of
/// examples). UsageError where there are fewer than two examples.
std::vector<Example> hold_out(std::vector<ExampleFile>& files, double fraction, std::uint64_t data_seed);

/// The endless stream of training examples. Of one file with n examples, example i is
/// order(i div n)[i mod n], order(epoch) a shuffle by (data seed, epoch). Of several, position i is the k-th
/// of a file's, as Mixture says, and takes order(k div n)[k mod n] of that file, shuffled by a seed of its
/// own. A pure function of (data seed, i), so that any rank at any time sees the same batch.
class ExampleStream {
 public:
  /// Keeps the first `limit` examples (0: all) of a shuffle by data seed of all files' examples together.
  /// UsageError naming a file that is left without any.
  ExampleStream(std::vector<ExampleFile> files, std::uint64_t data_seed, std::int64_t limit);
  /// Of one file.
  ExampleStream(std::vector<Example> examples, std::uint64_t data_seed, std::int64_t limit);

  std::int64_t size() const { return static_cast<std::int64_t>(examples_.size()); }
  std::span<const Example> examples() const { return examples_; }
  /// Examples [first, first + count) of the stream.
  std::vector<const Example*> at(std::uint64_t first, std::int64_t count) const;

  /// What a file is in the stream.
  struct Part {
    std::string path;
    std::uint64_t first, count;  ///< of examples()
    double share;                ///< of the stream, in (0, 1]
  };
  std::vector<Part> parts() const;
  /// Examples of the smallest file: so many positions apart an example may come again, or later.
  std::int64_t shortest_epoch() const;

 private:
  struct File {
    std::string path;
    std::uint64_t first, count, seed;
    mutable std::uint64_t cached_epoch = ~std::uint64_t{0};  ///< order belongs to it; a cache, not state
    mutable std::vector<std::uint32_t> order = {};
  };
  std::vector<Example> examples_;  ///< file after file
  std::vector<File> files_;
  Mixture mixture_;
};

}  // namespace mezzo
