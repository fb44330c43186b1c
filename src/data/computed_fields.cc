#include "mezzo/data/computed_fields.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

constexpr std::string_view list_mark = "[]";

}  // namespace

ComputedFields::ComputedFields(const std::vector<ComputedField>& fields) {
  for (const ComputedField& field : fields) {
    const bool is_list = field.name.ends_with(list_mark);
    try {
      fields_.push_back({.name = field.name.substr(0, field.name.size() - (is_list ? list_mark.size() : 0)),
                         .is_list = is_list,
                         .source = JinjaTemplate(field.source, "data.task.fields." + field.name)});
    } catch (const InputError& error) {
      throw UsageError("{}", error.what());
    }
  }
}

void ComputedFields::add_to(nlohmann::json& record, const std::string& where) const {
  if (fields_.empty()) return;
  nlohmann::ordered_json variables = record;
  for (const Field& field : fields_) {
    try {
      const std::string text = field.source.render(variables).text;
      nlohmann::json value = text;
      if (field.is_list) value = parse_json(text, "data.task.fields." + field.name);
      if (field.is_list && !value.is_array()) {
        throw InputError(
            "data.task.fields.{}[]: the template made {}, expected a list, as `| tojson` writes it",
            field.name, value.type_name());
      }
      variables[field.name] = value;
      record[field.name] = std::move(value);
    } catch (const InputError& error) {
      throw InputError("{}: {}", where, error.what());
    }
  }
}

}  // namespace mezzo
