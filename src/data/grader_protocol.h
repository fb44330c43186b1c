#pragma once
// What is said to a grader's program and what it says: JSON, a line each (docs/rewards.md).
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "mezzo/data/reward.h"

namespace mezzo {

/// {"id": ..., "record": ..., "completion": ..., "tokens": ..., "finish_reason": ...} and a line feed.
std::string question_of(std::int64_t id, const Completion& completion);

struct GraderAnswer {
  std::optional<std::int64_t> id;  ///< none: of the question that waits longest
  Grade grade;
};

/// The answer on a line. InputError for anything else.
GraderAnswer answer_in(std::string_view line);

}  // namespace mezzo
