#include "mezzo/data/field_path.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/data/records.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

constexpr std::string_view text_mark = ":text";

bool is_index(std::string_view step) {
  return !step.empty() && step.size() < 10 && step.find_first_not_of("0123456789") == step.npos;
}

/// The steps of `a.b[0]`; none of what is no path.
std::vector<std::string> steps_of(std::string_view name) {
  std::vector<std::string> steps;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    std::string_view part = name.substr(begin, end - begin);
    const std::size_t bracket = std::min(part.find('['), part.size());
    if (bracket == 0) return {};
    steps.emplace_back(part.substr(0, bracket));
    for (part.remove_prefix(bracket); !part.empty();) {
      const std::size_t close = part.find(']');
      if (part[0] != '[' || close == part.npos || !is_index(part.substr(1, close - 1))) return {};
      steps.emplace_back(part.substr(1, close - 1));
      part.remove_prefix(close + 1);
    }
    begin = end + 1;
  }
  return steps;
}

}  // namespace

FieldPath::FieldPath(std::string written) : name_(std::move(written)), as_text_(name_.ends_with(text_mark)) {
  if (as_text_) name_.resize(name_.size() - text_mark.size());
  steps_ = steps_of(name_);
}

const nlohmann::json* FieldPath::find(const nlohmann::json& record) const {
  if (const auto whole = record.find(name_); whole != record.end()) return &*whole;
  if (steps_.size() < 2) return nullptr;
  const nlohmann::json* value = &record;
  for (const std::string& step : steps_) {
    if (value->is_array()) {
      std::size_t index = value->size();
      if (is_index(step)) std::from_chars(step.data(), step.data() + step.size(), index);
      if (index >= value->size()) return nullptr;
      value = &(*value)[index];
    } else {
      const auto found = value->find(step);
      if (found == value->end()) return nullptr;
      value = &*found;
    }
  }
  return value;
}

const nlohmann::json& FieldPath::in(const nlohmann::json& record, const std::string& where) const {
  const nlohmann::json* value = find(record);
  if (value == nullptr) throw missing_field(record, name_, where);
  return *value;
}

std::string FieldPath::text_of(const nlohmann::json& value, const std::string& where) const {
  if (value.is_string()) return value.get<std::string>();
  const bool has_text = value.is_number() || value.is_boolean() || value.is_null();
  if (as_text_ && has_text) return value.dump();
  throw InputError("{}: field {}: found {}, expected a string{}", where, quote(name_), value.type_name(),
                   has_text ? fmt::format("; {}{} stands for its text", name_, text_mark) : "");
}

std::string FieldPath::text_in(const nlohmann::json& record, const std::string& where) const {
  return text_of(in(record, where), where);
}

std::vector<std::string> FieldPath::texts_in(const nlohmann::json& record, const std::string& where) const {
  const nlohmann::json& value = in(record, where);
  if (!value.is_array()) return {text_of(value, where)};
  if (value.empty())
    throw InputError("{}: field {}: found an empty list, expected a text", where, quote(name_));
  std::vector<std::string> texts;
  for (const nlohmann::json& element : value) texts.push_back(text_of(element, where));
  return texts;
}

}  // namespace mezzo
