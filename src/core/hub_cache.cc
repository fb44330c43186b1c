#include "mezzo/core/hub_cache.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>
#include <vector>

#include "mezzo/core/error.h"

namespace mezzo {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view prefix = "models--";

bool exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

std::string absolute(const std::string& name) {
  std::error_code error;
  fs::path path = fs::absolute(name, error).lexically_normal();
  if (error)
    throw UsageError("{}: the working directory that it starts from is gone ({})", name, error.message());
  if (!path.has_filename()) path = path.parent_path();  // "models/a/"
  return path.string();
}

/// NAME or ORG/NAME, of the characters that the Hub allows.
bool is_id(std::string_view name) {
  const auto is_part = [](std::string_view part) {
    return !part.empty() && part.front() != '.' && std::ranges::all_of(part, [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
             c == '.' || c == '-';
    });
  };
  const std::size_t slash = name.find('/');
  if (slash == name.npos) return is_part(name);
  return is_part(name.substr(0, slash)) && is_part(name.substr(slash + 1));
}

std::string first_line_of(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
  return line;
}

std::string snapshot_of(const fs::path& folder) {
  const fs::path snapshots = folder / "snapshots";
  const std::string commit = first_line_of(folder / "refs" / "main");
  if (!commit.empty()) {
    if (is_folder(snapshots / commit)) return (snapshots / commit).string();
    throw UsageError("{}: refs/main names the commit {}, which is not in snapshots/: was a download cut off?",
                     folder.string(), commit);
  }
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(snapshots, error)) names.push_back(entry.path().filename());
  std::ranges::sort(names);
  if (names.size() == 1) return (snapshots / names[0]).string();
  if (names.empty()) {
    throw UsageError("{}: is a folder of the Hub's cache without a snapshot; expected one in snapshots/",
                     folder.string());
  }
  throw UsageError(
      "{}: is a folder of the Hub's cache with {} snapshots and without refs/main; expected the path of "
      "one of them: snapshots/ holds {}",
      folder.string(), names.size(), fmt::join(names, ", "));
}

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

HubCache HubCache::of_environment() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const std::string folder = variable(name); !folder.empty()) return HubCache(folder);
  }
  const std::pair<const char*, const char*> parents[] = {
      {"HF_HOME", "hub"}, {"XDG_CACHE_HOME", "huggingface/hub"}, {"HOME", ".cache/huggingface/hub"}};
  for (const auto& [name, below] : parents) {
    if (const std::string folder = variable(name); !folder.empty()) return HubCache(folder + '/' + below);
  }
  return HubCache("");
}

std::string HubCache::find(const std::string& name) const {
  const std::string path = absolute(name);
  if (exists(path)) {
    const fs::path folder(path);
    const bool of_cache = folder.filename().string().starts_with(prefix) && is_folder(folder / "snapshots");
    return of_cache ? snapshot_of(folder) : path;
  }
  if (!is_id(name)) return path;
  std::string cached(name);
  if (const std::size_t slash = cached.find('/'); slash != cached.npos) cached.replace(slash, 1, "--");
  const fs::path folder = fs::path(folder_) / (std::string(prefix) + cached);
  if (!folder_.empty() && is_folder(folder)) return snapshot_of(absolute(folder.string()));
  throw UsageError(
      "{}: there is no folder {}, and no model of this name in the Hub's cache, {}; `hf download {}` fetches "
      "one of the Hub",
      name, path, folder_.empty() ? "for which neither HF_HOME nor HOME is set" : folder_, name);
}

std::string find_model(const std::string& name) { return HubCache::of_environment().find(name); }

}  // namespace mezzo
