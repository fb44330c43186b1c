#include "mezzo/model/family.h"

#include <array>
#include <nlohmann/json.hpp>

#include "config_reader.h"
#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

Description describe_gpt2(const ConfigReader& config);
Description describe_gptj(const ConfigReader& config);
Description describe_llama(const ConfigReader& config);

namespace {

constexpr std::array all_families{
    Family{"gpt2", describe_gpt2},
    Family{"gptj", describe_gptj},
    Family{"llama", describe_llama},
};

constexpr std::uint64_t config_limit = 16 << 20;  // bytes; a config.json has a few thousand

/// What related families do and these do not: a config.json that asks for it describes another model.
void refuse_other_maths(const ConfigReader& config) {
  config.none_of({"quantization_config", "sliding_window", "attn_logit_softcapping",
                  "final_logit_softcapping", "attention_multiplier", "embedding_multiplier",
                  "residual_multiplier", "logits_scaling", "logit_scale", "clip_qkv", "num_local_experts",
                  "num_experts"});
  config.only("is_encoder_decoder", false);
  config.only("add_cross_attention", false);
  config.only("use_qk_norm", false);
}

}  // namespace

std::span<const Family> families() { return all_families; }

Description describe(const nlohmann::json& json, const std::string& path) {
  if (!json.is_object()) throw InputError("{}: holds {}, expected a JSON object", path, json.type_name());
  const ConfigReader config(json, path);
  const std::string model_type = config.text("model_type");
  std::string served;
  for (const Family& family : all_families) {
    if (family.model_type == model_type) {
      refuse_other_maths(config);
      Description description = family.describe(config);
      description.family = model_type;
      return description;
    }
    served += (served.empty() ? "" : ", ") + std::string(family.model_type);
  }
  config.refuse("model_type", fmt::format("a family that is served: {}", served));
}

Description read_description(const std::string& directory) {
  const std::string path = directory + "/config.json";
  return describe(read_json_file(path, config_limit), path);
}

}  // namespace mezzo
