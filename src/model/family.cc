#include "mezzo/model/family.h"

#include <array>
#include <nlohmann/json.hpp>

#include "config_reader.h"
#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

Description describe_gemma2(const JsonCursor& config);
Description describe_gemma3(const JsonCursor& config);
Description describe_gpt2(const JsonCursor& config);
Description describe_gpt_neox(const JsonCursor& config);
Description describe_gptj(const JsonCursor& config);
Description describe_llama(const JsonCursor& config);
Description describe_mistral(const JsonCursor& config);
Description describe_mixtral(const JsonCursor& config);
Description describe_opt(const JsonCursor& config);
Description describe_phi3(const JsonCursor& config);
Description describe_qwen2(const JsonCursor& config);
Description describe_qwen3(const JsonCursor& config);
Description describe_qwen3_moe(const JsonCursor& config);

namespace {

constexpr std::array all_families{
    Family{"gemma2", describe_gemma2},
    Family{"gemma3_text", describe_gemma3},
    Family{"gpt2", describe_gpt2},
    Family{"gpt_neox", describe_gpt_neox},
    Family{"gptj", describe_gptj},
    Family{"llama", describe_llama},
    Family{"mistral", describe_mistral},
    Family{"mixtral", describe_mixtral},
    Family{"opt", describe_opt},
    Family{"phi3", describe_phi3},
    Family{"qwen2", describe_qwen2},
    Family{"qwen3", describe_qwen3},
    Family{"qwen3_moe", describe_qwen3_moe},
};

constexpr std::uint64_t config_limit = 16 << 20;  // bytes; a config.json has a few thousand

}  // namespace

std::span<const Family> families() { return all_families; }

Description describe(const nlohmann::json& json, const std::string& path) {
  const JsonCursor config(json, path);
  const JsonCursor type = config["model_type"];
  const std::string& model_type = type.text();
  std::string served;
  for (const Family& family : all_families) {
    if (family.model_type == model_type) {
      Description description = family.describe(config);
      description.family = model_type;
      return description;
    }
    served += (served.empty() ? "" : ", ") + std::string(family.model_type);
  }
  type.refuse(fmt::format("one of {}", served));
}

Description read_description(const std::string& directory) {
  const std::string path = directory + "/config.json";
  return describe(read_json_file(path, config_limit), path);
}

}  // namespace mezzo
