#include "mezzo/cli/sweep_grid.h"

#include <algorithm>
#include <string_view>

#include "mezzo/core/error.h"
#include "mezzo/core/printable.h"
#include "mezzo/io/files.h"
#include "mezzo/io/sha256.h"

namespace mezzo {

namespace {

constexpr std::size_t most_members = 10'000;
constexpr std::size_t longest_value = 40;  // of a folder's name
constexpr std::size_t longest_name = 200;  // a file system takes 255

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = std::min(text.find_first_not_of(" \t"), text.size());
  return text.substr(begin, text.find_last_not_of(" \t") + 1 - begin);
}

/// Where the quoted text ends that begins at `at`: behind its closing quote, or npos.
std::size_t end_of_quoted(std::string_view text, std::size_t at) {
  const char quote = text[at];
  for (std::size_t i = at + 1; i < text.size(); ++i) {
    if (quote == '"' && text[i] == '\\') {
      ++i;
    } else if (text[i] == quote) {
      if (quote == '"' || i + 1 >= text.size() || text[i + 1] != quote) return i + 1;
      ++i;  // '' within '...'
    }
  }
  return std::string_view::npos;
}

/// Where the list or map ends that begins at `at`: behind its last bracket, or npos.
std::size_t end_of_collection(std::string_view text, std::size_t at) {
  std::size_t depth = 0;
  bool begins_value = true;  // where a quote opens a text; elsewhere it is one of its characters
  for (std::size_t i = at; i < text.size(); ++i) {
    const char c = text[i];
    if (begins_value && (c == '"' || c == '\'')) {
      i = end_of_quoted(text, i);
      if (i == std::string_view::npos) return i;
      --i;
      begins_value = false;
      continue;
    }
    if (c == '[' || c == '{') ++depth;
    if ((c == ']' || c == '}') && --depth == 0) return i + 1;
    if (c != ' ') begins_value = c == '[' || c == '{' || c == ',' || c == ':';
  }
  return std::string_view::npos;
}

std::vector<std::string> split_values(std::string_view text, const std::string& where) {
  std::vector<std::string> values;
  for (std::size_t begin = 0;;) {
    const std::size_t first = text.find_first_not_of(" \t", begin);
    std::size_t end = begin;
    if (first != text.npos) {
      const char c = text[first];
      if (c == '"' || c == '\'') end = end_of_quoted(text, first);
      else if (c == '[' || c == '{') end = end_of_collection(text, first);
      if (end == text.npos) throw UsageError("{}: has a {} that is not closed", where, c);
    }
    end = std::min(text.find(',', end), text.size());
    values.emplace_back(trimmed(text.substr(begin, end - begin)));
    if (end == text.size()) return values;
    begin = end + 1;
  }
}

std::string hash_of(const std::string& text) { return sha256_of(bytes_of(text)).substr(0, 8); }

/// A value as a part of a file's name.
std::string safe(const std::string& value) {
  std::string name;
  for (const char c : value) {
    const bool keeps = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '.' || c == '-' || c == '+' || c == '_';
    name += keeps ? c : '_';
  }
  if (name == value && name.size() <= longest_value) return name;
  return name.substr(0, longest_value) + "~" + hash_of(value);
}

std::string leaf_of(const std::string& key) { return key.substr(key.rfind('.') + 1); }

std::string name_of(std::vector<SweepValue> values) {
  std::ranges::sort(values, {}, &SweepValue::key);
  std::string name;
  for (const SweepValue& one : values) {
    const std::string leaf = leaf_of(one.key);
    const bool shared =
        std::ranges::count_if(values, [&](const SweepValue& v) { return leaf_of(v.key) == leaf; }) > 1;
    name += (name.empty() ? "" : ",") + safe(shared ? one.key : leaf) + "=" + safe(one.value);
  }
  if (name.size() <= longest_name) return name;
  const std::string hash = "~" + hash_of(name);
  return name.substr(0, longest_name - hash.size()) + hash;
}

}  // namespace

std::vector<std::string> SweepGrid::overrides_of(const SweepMember& member) const {
  std::vector<std::string> overrides = fixed;
  for (const SweepValue& one : member.values) overrides.push_back(one.key + "=" + one.value);
  return overrides;
}

SweepGrid expand_grid(std::span<const std::string> overrides) {
  SweepGrid grid;
  std::vector<std::vector<SweepValue>> combinations = {{}};
  for (const std::string& text : overrides) {
    const std::size_t equals = text.find('=');
    const std::string where = fmt::format("override '{}'", printable(text));
    const std::string key = text.substr(0, equals);
    const std::vector<std::string> values =
        equals == text.npos ? std::vector<std::string>{""} : split_values(text.substr(equals + 1), where);
    if (values.size() == 1) {
      grid.fixed.push_back(text);
      continue;
    }
    if (std::ranges::find(grid.keys, key) != grid.keys.end())
      throw UsageError("{}: '{}' is overridden twice; expected once", where, printable(key));
    if (key == "train.output_dir") {
      throw UsageError(
          "{}: every run has a folder of its own below it; expected one value (a comma that belongs to it "
          "needs YAML's quotes)",
          where);
    }
    for (auto value = values.begin(); value != values.end(); ++value) {
      if (value->empty()) throw UsageError("{}: expected a value on either side of each comma", where);
      if (std::find(values.begin(), value, *value) != value)
        throw UsageError("{}: has {} twice; expected different values", where, printable(*value));
    }
    grid.keys.push_back(key);
    if (combinations.size() > most_members / values.size())
      throw UsageError("{}: makes more than {} runs", where, most_members);
    std::vector<std::vector<SweepValue>> longer;
    for (const std::vector<SweepValue>& combination : combinations) {
      for (const std::string& value : values) {
        longer.push_back(combination);
        longer.back().push_back({key, value});
      }
    }
    combinations = std::move(longer);
  }
  if (grid.keys.empty()) {
    throw UsageError(
        "a sweep needs a key with several values, such as optimizer.learning_rate=1e-3,3e-3; for one run "
        "there is mezzo train");
  }
  for (std::vector<SweepValue>& values : combinations) {
    std::string name = name_of(values);
    grid.members.push_back({.values = std::move(values), .name = std::move(name)});
  }
  return grid;
}

}  // namespace mezzo
