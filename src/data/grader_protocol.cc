#include "grader_protocol.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

std::string question_of(std::int64_t id, const Completion& completion) {
  // In ASCII: the program reads the same in any locale.
  const std::string text = nlohmann::json(completion.text).dump(-1, ' ', /*ensure_ascii=*/true);
  return fmt::format(R"({{"id": {}, "record": {}, "completion": {}, "tokens": {}, "finish_reason": "{}"}})",
                     id, completion.record, text, completion.tokens, name_of(completion.finish)) +
         '\n';
}

GraderAnswer answer_in(std::string_view line) {
  static const std::string name = "its answer";
  nlohmann::json json;
  try {
    json = parse_json(line, name);
  } catch (const InputError&) {
    const bool not_finite = line.find("NaN") != line.npos || line.find("Infinity") != line.npos;
    throw InputError("it answered {}; expected a line of JSON such as {{\"reward\": 1.0}}{}", quote(line),
                     not_finite ? ", which has no NaN and no infinity" : "");
  }
  const JsonCursor answer(json, name);
  answer.check_keys({"reward", "id", "metrics"});
  GraderAnswer result;
  if (!answer["id"].is_unset()) result.id = answer["id"].integer(0, std::numeric_limits<std::int64_t>::max());
  result.grade.reward = answer["reward"].number();
  if (!answer["metrics"].is_unset()) {
    for (const auto& [metric, value] : answer["metrics"].members())
      result.grade.metrics[metric] = value.number();
  }
  return result;
}

}  // namespace mezzo
