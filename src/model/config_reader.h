#pragma once
// Typed, range-checked access to a model's config.json. A key that is null counts as absent, as in
// transformers.
#include <fmt/format.h>

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "mezzo/model/description.h"

namespace mezzo {

class ConfigReader {
 public:
  /// `where` names the file and, for an object inside it, the key: "/m/config.json: rope_scaling".
  ConfigReader(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {}

  bool has(std::string_view key) const { return find(key) != nullptr; }
  /// A whole number in [1, limit]; the key must be there.
  std::int64_t size(std::string_view key, std::int64_t limit) const;
  std::int64_t size_or(std::string_view key, std::int64_t limit, std::int64_t fallback) const;
  double positive_or(std::string_view key, double fallback) const;  ///< finite, > 0
  bool flag_or(std::string_view key, bool fallback) const;
  std::string text(std::string_view key) const;
  std::string text_or(std::string_view key, std::string_view fallback) const;
  /// The object under `key`; nothing when there is none, or an empty one.
  std::optional<ConfigReader> object(std::string_view key) const;

  /// InputError unless `key` is absent or has this value, which leaves the maths as Mezzo does it.
  void only(std::string_view key, const nlohmann::json& value) const;
  /// InputError unless every one is absent.
  void none_of(std::initializer_list<std::string_view> keys) const;

  /// InputError: WHERE: KEY is FOUND, expected EXPECTED.
  [[noreturn]] void refuse(std::string_view key, std::string_view expected) const;
  const std::string& where() const { return where_; }

 private:
  const nlohmann::json* find(std::string_view key) const;

  const nlohmann::json& object_;
  std::string where_;
};

// Limits that keep every product of two sizes, and every table of layers, in range.
inline constexpr std::int64_t width_limit = std::int64_t{1} << 24;
inline constexpr std::int64_t layers_limit = 10'000;
inline constexpr std::int64_t index_limit = 0x7fffffff;  ///< tokens and positions are 32-bit

/// transformers' ACT2FN names.
Activation read_activation(const ConfigReader& config, std::string_view key, std::string_view fallback);

}  // namespace mezzo
