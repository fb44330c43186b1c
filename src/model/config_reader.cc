#include "config_reader.h"

#include <fmt/ranges.h>

#include <cmath>

#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

std::string shown(const nlohmann::json& value) {
  constexpr std::size_t most = 80;
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > most) text = text.substr(0, most) + "...";
  return text;
}

}  // namespace

const nlohmann::json* ConfigReader::find(std::string_view key) const {
  const auto entry = object_.find(key);
  return entry == object_.end() || entry->is_null() ? nullptr : &*entry;
}

void ConfigReader::refuse(std::string_view key, std::string_view expected) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) throw InputError("{}: {} is missing, expected {}", where_, key, expected);
  throw InputError("{}: {} is {}, expected {}", where_, key, shown(*value), expected);
}

std::int64_t ConfigReader::size(std::string_view key, std::int64_t limit) const {
  const nlohmann::json* value = find(key);
  const bool fits = value != nullptr && value->is_number_integer() &&
                    (value->is_number_unsigned() || value->get<std::int64_t>() >= 1) &&
                    value->get<std::uint64_t>() >= 1 &&
                    value->get<std::uint64_t>() <= static_cast<std::uint64_t>(limit);
  if (!fits) refuse(key, fmt::format("a whole number from 1 to {}", limit));
  return value->get<std::int64_t>();
}

std::int64_t ConfigReader::size_or(std::string_view key, std::int64_t limit, std::int64_t fallback) const {
  return has(key) ? size(key, limit) : fallback;
}

double ConfigReader::positive_or(std::string_view key, double fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return fallback;
  const double number = value->is_number() ? value->get<double>() : 0.0;
  if (!(number > 0.0) || !std::isfinite(number)) refuse(key, "a finite number above 0");
  return number;
}

bool ConfigReader::flag_or(std::string_view key, bool fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) refuse(key, "true or false");
  return value->get<bool>();
}

std::string ConfigReader::text(std::string_view key) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr || !value->is_string()) refuse(key, "a text");
  return value->get<std::string>();
}

std::string ConfigReader::text_or(std::string_view key, std::string_view fallback) const {
  return has(key) ? text(key) : std::string(fallback);
}

std::optional<ConfigReader> ConfigReader::object(std::string_view key) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) refuse(key, "an object");
  if (value->empty()) return std::nullopt;
  return ConfigReader(*value, fmt::format("{}: {}", where_, key));
}

void ConfigReader::only(std::string_view key, const nlohmann::json& value) const {
  const nlohmann::json* found = find(key);
  if (found != nullptr && *found != value) refuse(key, fmt::format("{} (no other is served)", value.dump()));
}

void ConfigReader::none_of(std::initializer_list<std::string_view> keys) const {
  for (const std::string_view key : keys) {
    if (has(key)) refuse(key, "null (it changes the model's maths in a way that is not served)");
  }
}

Activation read_activation(const ConfigReader& config, std::string_view key, std::string_view fallback) {
  const std::string name = config.text_or(key, fallback);
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
  if (name == "gelu") return Activation::gelu_erf;
  if (name == "relu") return Activation::relu;
  config.refuse(key, "one of silu, swish, gelu_new, gelu_pytorch_tanh, gelu, relu");
}

}  // namespace mezzo
