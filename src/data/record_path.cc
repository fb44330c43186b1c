#include "mezzo/data/record_path.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

using Json = nlohmann::json;

RecordPath::RecordPath(std::string_view text) {
  const auto fail = [&] {
    throw UsageError(
        "data.task.records: found {}, expected names joined by dots, with [] behind that of a list",
        quote(text));
  };
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('.', begin), text.size());
    std::string_view part = text.substr(begin, end - begin);
    const std::size_t bracket = std::min(part.find('['), part.size());
    if (part.empty() || (bracket == 0 && begin != 0)) fail();
    if (bracket > 0) steps_.emplace_back(part.substr(0, bracket));
    for (part.remove_prefix(bracket); !part.empty(); part.remove_prefix(2)) {
      if (!part.starts_with("[]")) fail();
      steps_.emplace_back();
    }
    begin = end + 1;
  }
}

/// What is known on the way to a record.
struct RecordPath::Walk {
  const std::string& where;
  std::string place;  ///< "data[0].paragraphs"
  std::string name;   ///< of the last step that has one
  Json outer;         ///< fields of the objects passed
  const RecordSink& sink;

  std::string text() const { return place.empty() ? where : where + ": " + place; }
};

void RecordPath::walk(const Json& value, std::size_t step, const Walk& so_far) const {
  const bool is_list = step < steps_.size() && steps_[step].empty();
  if (!value.is_object() && !(is_list && value.is_array())) {
    throw InputError("{}: found {}, expected {} (data.task.records)", so_far.text(), value.type_name(),
                     is_list ? "a list or an object" : "an object");
  }
  if (is_list) {
    std::size_t number = 0;
    for (auto member = value.begin(); member != value.end(); ++member) {
      Walk next = so_far;
      next.place +=
          value.is_array() ? fmt::format("[{}]", number++) : fmt::format("[{}]", quote(member.key()));
      walk(*member, step + 1, next);
    }
    return;
  }
  if (step == steps_.size()) {
    Json record = value;
    for (const auto& field : so_far.outer.items()) {
      if (!record.contains(field.key())) record[field.key()] = field.value();
    }
    so_far.sink(record, so_far.text());
    return;
  }
  const std::string& name = steps_[step];
  const auto child = value.find(name);
  if (child == value.end()) throw missing_field(value, name, so_far.text());
  Walk next = so_far;
  Json own = Json::object();  // without what the path goes on to, which may be large
  for (auto field = value.begin(); field != value.end(); ++field) {
    if (field != child) own[field.key()] = *field;
  }
  next.outer.update(own);
  if (!so_far.name.empty()) next.outer[so_far.name] = std::move(own);
  next.name = name;
  next.place += (next.place.empty() ? "" : ".") + name;
  walk(*child, step + 1, next);
}

void RecordPath::for_each(const Json& value, const std::string& where, const RecordSink& sink) const {
  walk(value, 0, {.where = where, .place = "", .name = "", .outer = Json::object(), .sink = sink});
}

}  // namespace mezzo
