#include "config_names.h"

#include <algorithm>

#include "mezzo/core/error.h"

namespace mezzo::config {
namespace {

// The sections, "data" and "data.task" among them, in the table's order.
std::vector<std::string> section_names() {
  std::vector<std::string> sections;
  for (const Key& row : table()) {
    for (std::size_t dot = row.info.name.find('.'); dot != std::string::npos;
         dot = row.info.name.find('.', dot + 1)) {
      const std::string section = row.info.name.substr(0, dot);
      if (std::find(sections.begin(), sections.end(), section) == sections.end()) sections.push_back(section);
    }
  }
  return sections;
}

// The known key or section, by its full name, that `leaf` in `section` was most likely meant to be, or "".
std::string nearest_known(const std::string& section, const std::string& leaf) {
  if (leaf.size() > 100) return "";  // nobody's slip of the pen, and slow to compare
  std::vector<std::string> names = section_names();
  for (const Key& row : table()) names.push_back(row.info.name);

  const auto has_synonym = [&](const Key& row) {
    return std::find(row.synonyms.begin(), row.synonyms.end(), leaf) != row.synonyms.end();
  };
  for (const Key& row : table()) {
    if (split_leaf(row.info.name).first == section && has_synonym(row)) return row.info.name;
  }
  for (const std::string& name : names) {  // the right name in the wrong section, or written out with dots
    if (split_leaf(name).second == leaf || name == leaf) return name;
  }
  for (const Key& row : table()) {
    if (has_synonym(row)) return row.info.name;
  }
  std::vector<std::string> here, elsewhere;
  for (const std::string& name : names) {
    (split_leaf(name).first == section ? here : elsewhere).push_back(split_leaf(name).second);
  }
  const auto full_name = [&](const std::string& near) {
    const std::string sibling = section.empty() ? near : section + "." + near;
    if (std::find(names.begin(), names.end(), sibling) != names.end()) return sibling;
    for (const std::string& name : names) {
      if (split_leaf(name).second == near) return name;
    }
    return std::string();
  };
  if (const std::string near = nearest(leaf, here); !near.empty()) return full_name(near);
  for (const std::string& name : names) {
    const std::string known = split_leaf(name).second;
    const bool overlap = known.find(leaf) != known.npos || leaf.find(known) != leaf.npos;
    if (overlap && std::min(known.size(), leaf.size()) >= 3) return name;
  }
  if (const std::string near = nearest(leaf, elsewhere); near.size() > 2) return full_name(near);
  return "";
}

/// What stands in `section`, for a name that is near to none of it.
std::string known_in(const std::string& section) {
  std::string known;
  for (const std::string& name : section_names()) {
    if (split_leaf(name).first == section) known += (known.empty() ? "" : ", ") + name;
  }
  for (const Key& row : table()) {
    if (split_leaf(row.info.name).first == section) known += (known.empty() ? "" : ", ") + row.info.name;
  }
  return "known there: " + known;
}

}  // namespace

const Key* find_key(std::string_view name) {
  for (const Key& row : table()) {
    if (row.info.name == name) return &row;
  }
  return nullptr;
}

std::pair<std::string, std::string> split_leaf(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  return dot == name.npos ? std::pair(std::string(), name)
                          : std::pair(name.substr(0, dot), name.substr(dot + 1));
}

bool is_section(const std::string& name) {
  const std::vector<std::string> sections = section_names();
  return std::find(sections.begin(), sections.end(), name) != sections.end();
}

std::string nearest_text(const std::string& section, const std::string& leaf) {
  const std::string near = nearest_known(section, leaf);
  if (near.empty()) return known_in(section);
  return fmt::format("the nearest known {} is '{}'", is_section(near) ? "section" : "key", near);
}

void fail_unknown(const std::string& where, const std::string& section, const std::string& leaf) {
  const std::string place =
      section.empty() ? "at the top level" : fmt::format("in the section '{}'", section);
  if (const std::size_t colon = leaf.find(':'); colon != leaf.npos) {
    throw UsageError(
        "{}: unknown key '{}' {}; a key and its value are written with a space between, '{}: VALUE'", where,
        yaml::printable(leaf), place, yaml::printable(leaf.substr(0, colon)));
  }
  throw UsageError("{}: unknown key '{}' {}; {}", where, yaml::printable(leaf), place,
                   nearest_text(section, leaf));
}

void fail_section(const std::string& where, const std::string& section, const yaml::Node& node) {
  const bool no_space = node.is_scalar() && node.text.find(':') != node.text.npos;
  throw UsageError("{}: '{}' is a section, expected a map of its keys, found {}{}", where, section,
                   found(node),
                   no_space ? "; a key and its value are written with a space between, 'key: VALUE'" : "");
}

}  // namespace mezzo::config
