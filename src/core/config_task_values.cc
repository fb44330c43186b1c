// The values of data.task that are maps and lists.
#include <map>
#include <set>

#include "config_values.h"

namespace mezzo::config {

using yaml::Node;

namespace {

/// Of a label or a field's name. Longer implicit keys would not be valid YAML when the config is printed
/// (1024 characters at most).
constexpr std::size_t longest_name = 128;

/// Of an option, which is a template where it has a {field}.
void check_template(const Value& value, const Node& node) {
  parse_optional_template(node.text, fmt::format("{}: {}", node.place.text(), value.key.name));
}

}  // namespace

std::string VerbalizersType::range() const {
  return "a map of at least two entries, the text of a label: a non-empty option";
}

std::string VerbalizersType::text(const std::vector<Verbalizer>& value) const {
  if (value.empty()) return "null";
  return list_text(value, "{}", [](const Verbalizer& entry) {
    return yaml::scalar(entry.label) + ": " + yaml::scalar(entry.option);
  });
}

std::vector<Verbalizer> VerbalizersType::parse(const Value& value) const {
  const Node& map = value.node;
  if (map.kind == Node::Kind::null) return {};
  if (map.kind != Node::Kind::map) value.fail();
  std::vector<Verbalizer> result;
  std::map<std::string, std::string> labels;  // by option
  for (std::size_t i = 0; i < map.items.size(); ++i) {
    const std::string& label = map.keys[i].text;
    const Node& option = map.items[i];
    const std::string name = yaml::printable(label);
    if (label.size() > longest_name) {
      value.fail(map.keys[i], fmt::format("the label '{}' has {} bytes, expected at most {}", name,
                                          label.size(), longest_name));
    }
    if (!is_text(option) || option.text.empty()) {
      value.fail(option, fmt::format("expected a non-empty text as the option of label '{}', found {}{}",
                                     name, found(option), text_hint(option)));
    }
    check_template(value, option);
    if (const auto [other, is_new] = labels.emplace(option.text, label); !is_new) {
      value.fail(option,
                 fmt::format("the labels '{}' and '{}' have the same option \"{}\", expected different ones",
                             yaml::printable(other->second), name, yaml::printable(option.text)));
    }
    result.push_back({label, option.text});
  }
  if (result.size() < 2) value.fail(map, fmt::format("expected {}, found {}", range(), result.size()));
  return result;
}

std::string OptionsType::range() const {
  return "a list of at least two non-empty texts, or the name of a field that holds such a list";
}

std::string OptionsType::text(const TaskOptions& value) const {
  if (value.unset()) return "null";
  if (!value.field.empty()) return yaml::scalar(value.field);
  return list_text(value.templates, "[]", [](const std::string& option) { return yaml::scalar(option); });
}

TaskOptions OptionsType::parse(const Value& value) const {
  const Node& node = value.node;
  if (node.kind == Node::Kind::null) return {};
  if (node.kind != Node::Kind::list) {
    if (!is_text(node) || node.text.empty()) value.fail(text_hint(node));
    if (!field_in(node.text).empty()) value.fail("; a template stands in a list, [...]");
    return {.templates = {}, .field = node.text};
  }
  TaskOptions options;
  std::set<std::string> seen;
  for (const Node& item : node.items) {
    if (!is_text(item) || item.text.empty()) {
      value.fail(item, fmt::format("expected a non-empty text as an option, found {}{}", found(item),
                                   text_hint(item)));
    }
    check_template(value, item);
    if (!seen.insert(item.text).second)
      value.fail(item, fmt::format("the option {} stands in the list twice", found(item)));
    options.templates.push_back(item.text);
  }
  if (options.templates.size() < 2)
    value.fail(node, fmt::format("expected {}, found {}", range(), options.templates.size()));
  return options;
}

std::string ComputedFieldsType::range() const { return "a map, the name of a field: a Jinja template"; }

std::string ComputedFieldsType::text(const std::vector<ComputedField>& value) const {
  if (value.empty()) return "null";
  return list_text(value, "{}", [](const ComputedField& field) {
    return yaml::scalar(field.name) + ": " + yaml::scalar(field.source);
  });
}

std::vector<ComputedField> ComputedFieldsType::parse(const Value& value) const {
  const Node& map = value.node;
  if (map.kind == Node::Kind::null) return {};
  if (map.kind != Node::Kind::map) value.fail();
  std::vector<ComputedField> fields;
  for (std::size_t i = 0; i < map.items.size(); ++i) {
    const std::string& name = map.keys[i].text;
    const Node& source = map.items[i];
    if (name.empty() || name == "[]" || name.size() > longest_name) {
      value.fail(map.keys[i], fmt::format("expected a field's name of 1 to {} bytes, found '{}'",
                                          longest_name, yaml::printable(name)));
    }
    if (!is_text(source)) {
      value.fail(source, fmt::format("expected a Jinja template as the field '{}', found {}{}",
                                     yaml::printable(name), found(source), text_hint(source)));
    }
    fields.push_back({name, source.text});
  }
  return fields;
}

}  // namespace mezzo::config
