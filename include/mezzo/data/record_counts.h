#pragma once
// What the records of data files have in them that their author may not have meant.
#include <cstdint>
#include <string>
#include <vector>

#include "mezzo/core/config.h"

namespace mezzo {

/// Numbers of records.
struct RecordCounts {
  std::int64_t records = 0;
  std::int64_t overlong = 0;         ///< more than max_length tokens; cut or left out
  std::int64_t blank_at_border = 0;  ///< the prompt ends in a blank and an option begins without one
  std::int64_t no_blank = 0;         ///< an option begins with a letter or digit, and no blank is before it
  std::int64_t second_start = 0;     ///< the text itself begins with the start token

  RecordCounts& operator+=(const RecordCounts& other);
  bool operator==(const RecordCounts&) const = default;
};

/// One line each, with the counts. `key` names the data, `max_length` what examples may have.
std::vector<std::string> warnings_of(const RecordCounts& counts, const TaskConfig& task,
                                     const std::string& key, std::int64_t max_length);

}  // namespace mezzo
