#pragma once
// Records that lie within others, as those of SQuAD do.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "mezzo/data/records.h"

namespace mezzo {

/// Where records lie within a value: names joined by dots, with `[]` for each element of a list or member of
/// an object, as in `data[].paragraphs[].qas[]`.
class RecordPath {
 public:
  /// UsageError naming data.task.records for what is no such path.
  explicit RecordPath(std::string_view text);

  /// Each record there, with where it lies ("train.json: data[0].paragraphs[2].qas[1]"). A record has its own
  /// fields; those of all objects that it lies in, of a name the innermost one's; and each of these objects
  /// under the name that the path has for it. The lists on the path are left out. InputError naming `where`
  /// for a value that has no such path.
  void for_each(const nlohmann::json& value, const std::string& where, const RecordSink& sink) const;

 private:
  struct Walk;
  void walk(const nlohmann::json& value, std::size_t step, const Walk& so_far) const;

  std::vector<std::string> steps_;  ///< names, and "" for []
};

}  // namespace mezzo
