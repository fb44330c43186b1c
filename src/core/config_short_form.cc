#include "config_short_form.h"

#include <algorithm>
#include <utility>

#include "config_names.h"

namespace mezzo::config {

using yaml::Node;

const Key* short_form_of(const std::string& section) {
  for (const Key& row : table()) {
    if (row.is_short_form && split_leaf(row.info.name).first == section) return &row;
  }
  return nullptr;
}

void expand_short_form(Node& node, const std::string& section) {
  if (!node.is_scalar()) return;
  Node map{.kind = Node::Kind::map, .text = {}, .keys = {}, .items = {}, .place = node.place};
  map.set(split_leaf(short_form_of(section)->info.name).second, std::move(node));
  node = std::move(map);
}

void expand_short_forms(Node& root) {
  for (const Key& row : table()) {
    if (!row.is_short_form) continue;
    const std::string section = split_leaf(row.info.name).first;
    Node* node = &root;
    for (std::size_t begin = 0; node != nullptr && begin <= section.size();) {
      const std::size_t end = std::min(section.find('.', begin), section.size());
      node = node->kind == Node::Kind::map ? node->find(section.substr(begin, end - begin)) : nullptr;
      begin = end + 1;
    }
    if (node != nullptr) expand_short_form(*node, section);
  }
}

}  // namespace mezzo::config
