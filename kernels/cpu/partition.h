#pragma once
#include <cstdint>

namespace mezzo::cpu {

/// `count` things cut into the fewest parts of at most `limit`, as even as possible. A function of the two
/// numbers alone: it is what makes a row's bits independent of the probes, ranks and threads around it
/// (docs/decisions/0001-row-blocks.md).
class Partition {
 public:
  Partition(std::int64_t count, std::int64_t limit) : count_(count), parts_((count + limit - 1) / limit) {}

  std::int64_t parts() const { return parts_; }
  std::int64_t begin(std::int64_t part) const { return count_ * part / parts_; }
  std::int64_t size(std::int64_t part) const { return begin(part + 1) - begin(part); }

 private:
  std::int64_t count_;
  std::int64_t parts_;
};

}  // namespace mezzo::cpu
