#pragma once
// Fields that are computed from the others of a record.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "mezzo/core/config.h"
#include "mezzo/data/jinja.h"

namespace mezzo {

/// data.task.fields.
class ComputedFields {
 public:
  /// UsageError for what is no template.
  explicit ComputedFields(const std::vector<ComputedField>& fields);

  bool empty() const { return fields_.empty(); }
  /// Adds them to a record, in order, so that one may use those before it. InputError naming `where`.
  void add_to(nlohmann::json& record, const std::string& where) const;

 private:
  struct Field {
    std::string name;
    bool is_list;
    JinjaTemplate source;
  };
  std::vector<Field> fields_;
};

}  // namespace mezzo
