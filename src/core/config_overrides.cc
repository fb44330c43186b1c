#include "config_overrides.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "config_names.h"
#include "config_short_form.h"
#include "mezzo/core/error.h"

namespace mezzo::config {
namespace {

using yaml::Node;

// The map of `section` (dotted) below `root`, made where it is missing or empty.
Node& section_node(Node& root, const std::string& section, const yaml::Place& place) {
  Node* node = &root;
  std::string so_far;
  for (std::size_t begin = 0; begin <= section.size();) {
    const std::size_t end = std::min(section.find('.', begin), section.size());
    const std::string part = section.substr(begin, end - begin);
    so_far += (so_far.empty() ? "" : ".") + part;
    Node* child = node->find(part);
    if (child == nullptr) {
      node->set(part, Node{.kind = Node::Kind::map, .text = {}, .keys = {}, .items = {}, .place = place});
      child = node->find(part);
    }
    if (child->kind == Node::Kind::null) child->kind = Node::Kind::map;
    if (child->kind != Node::Kind::map) fail_section(child->place.text(), so_far, *child);
    node = child;
    begin = end + 1;
  }
  return *node;
}

}  // namespace

void apply_override(Node& root, const std::string& text, std::set<std::string>& seen) {
  const std::string where = fmt::format("override '{}'", yaml::printable(text));
  const std::size_t equals = text.find('=');
  if (equals == text.npos || equals == 0) throw UsageError("{}: expected a.b=value", where);
  const std::string name = text.substr(0, equals);
  const std::string value = text.substr(equals + 1);
  const Key* short_form = short_form_of(name);
  if (is_section(name) && short_form == nullptr) {
    throw UsageError("{}: '{}' is a section; override its keys one by one, {}.KEY=value", where, name, name);
  }

  std::string map;  // whose entry the name is
  for (const std::string_view key : map_keys) {
    if (name.starts_with(std::string(key) + ".")) map = key;
  }
  if (map.empty() && find_key(name) == nullptr && short_form == nullptr) {
    const auto [section, leaf] = split_leaf(name);
    if (section.empty() || is_section(section)) fail_unknown(where, section, leaf);
    auto [parent, unknown] = split_leaf(section);  // down to the first part that is unknown
    while (!parent.empty() && !is_section(parent)) std::tie(parent, unknown) = split_leaf(parent);
    throw UsageError("{}: unknown section '{}'; {}", where, yaml::printable(section),
                     nearest_text(parent, unknown));
  }
  bool repeated = !seen.insert(name).second;
  const std::string whole = map.empty() ? split_leaf(name).first : map;
  repeated |= seen.contains(whole);
  if (short_form != nullptr || std::ranges::find(map_keys, name) != map_keys.end()) {
    repeated |=
        std::any_of(seen.begin(), seen.end(), [&](const auto& s) { return s.starts_with(name + "."); });
  }
  if (repeated) throw UsageError("{}: '{}' is overridden twice; expected once", where, yaml::printable(name));

  Node node = yaml::parse(value, where, false);
  if (node.kind == Node::Kind::null && value.find_first_not_of(" \t\r\n") == value.npos) {
    throw UsageError("{}: has no value; expected {}, or null where that is allowed", where,
                     (short_form != nullptr ? short_form : find_key(map.empty() ? name : map))->info.range);
  }
  if (!map.empty()) {
    section_node(root, map, node.place).set(name.substr(map.size() + 1), std::move(node));
  } else {
    const auto [section, leaf] = split_leaf(name);
    if (short_form != nullptr) expand_short_form(node, name);
    section_node(root, section, node.place).set(leaf, std::move(node));
  }
}

}  // namespace mezzo::config
