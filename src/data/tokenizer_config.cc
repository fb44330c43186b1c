#include "mezzo/data/tokenizer_config.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;

/// In the order in which transformers adds them.
constexpr std::string_view named_tokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                             "pad_token", "cls_token", "mask_token"};

/// The classes whose prefix space tokenizer_config.json alone decides, and that have a token by default.
bool is_gpt2(const JsonCursor& config) {
  const std::string name = config["tokenizer_class"].text_or("");
  return name == "GPT2Tokenizer" || name == "GPT2TokenizerFast";
}

/// The text of a token, which is written as a text or as an object with its flags.
const std::string& content_of(const JsonCursor& token) {
  return token.is_object() ? token["content"].text() : token.text();
}

/// A token as an entry of tokenizer.json's added_tokens, without its id.
Json entry_of(const JsonCursor& token, bool is_special) {
  const bool has_flags = token.is_object();
  const auto flag = [&](const char* name, bool otherwise) {
    return has_flags ? token[name].boolean_or(otherwise) : otherwise;
  };
  const bool special = flag("special", is_special);
  return {{"content", content_of(token)},
          {"single_word", flag("single_word", false)},
          {"lstrip", flag("lstrip", false)},
          {"rstrip", flag("rstrip", false)},
          {"special", special},
          {"normalized", flag("normalized", !special)}};
}

/// The added tokens of a tokenizer.json that is not read yet: entries are taken as they are written, for the
/// reader checks all of them behind.
class AddedTokenList {
 public:
  AddedTokenList(Json& document, const std::string& file)
      : vocabulary_(Vocabulary::read(JsonCursor(document, file)["model"])) {
    const JsonCursor root(document, file);
    next_id_ = static_cast<std::int64_t>(vocabulary_.ids().size());
    Json& entries = document["added_tokens"];
    if (entries.is_null()) entries = Json::array();
    entries_ = &entries;
    for (const JsonCursor& entry : root["added_tokens"].elements()) {
      next_id_ = std::max(next_id_, entry["id"].integer(0, max_token_id) + 1);
      index_.emplace(entry["content"].text(), index_.size());
    }
  }

  bool contains(const std::string& content) const { return index_.contains(content); }
  /// The id that the token has, or gets when it is added.
  std::int64_t id_of(const std::string& content) const {
    if (const auto added = index_.find(content); added != index_.end()) {
      return (*entries_)[added->second]["id"].get<std::int64_t>();
    }
    const auto known = vocabulary_.find(content);
    return known ? *known : next_id_;
  }
  /// Adds a token, or sets the flags of one that is there.
  void put(Json entry) {
    const auto content = entry["content"].get<std::string>();
    entry["id"] = id_of(content);
    next_id_ = std::max(next_id_, entry["id"].get<std::int64_t>() + 1);
    const auto [place, is_new] = index_.emplace(content, entries_->size());
    if (is_new) {
      entries_->push_back(std::move(entry));
    } else {
      (*entries_)[place->second] = std::move(entry);
    }
  }
  /// Adds a special token that is not an added token yet.
  void add_special(const JsonCursor& token) {
    const std::string& content = content_of(token);
    if (!content.empty() && !contains(content)) put(entry_of(token, /*is_special=*/true));
  }

 private:
  Vocabulary vocabulary_;
  Json* entries_ = nullptr;
  std::unordered_map<std::string, std::size_t> index_;  ///< into entries_, by content
  std::int64_t next_id_ = 0;
};

/// The entries of added_tokens_decoder by their ids.
std::vector<std::pair<std::int64_t, JsonCursor>> decoder_entries(const JsonCursor& field) {
  std::vector<std::pair<std::int64_t, JsonCursor>> entries;
  if (field.is_unset()) return entries;
  for (const auto& [key, entry] : field.members()) {
    std::int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id > max_token_id) {
      throw InputError("{}: the key {} is no id; expected a whole number from 0 to {}", field.where(),
                       quote(key), max_token_id);
    }
    entries.emplace_back(id, entry);
  }
  std::ranges::sort(entries, {}, [](const auto& entry) { return entry.first; });
  return entries;
}

void add_tokens(const JsonCursor& config, AddedTokenList& tokens) {
  for (const auto& [id, entry] : decoder_entries(config["added_tokens_decoder"])) {
    const std::string content = entry["content"].text();
    if (content.empty()) entry["content"].fail("a text that is not empty");
    if (const std::int64_t given = tokens.id_of(content); given != id) {
      throw InputError("{} is the token {}; expected it at {}, the id that Hugging Face gives it",
                       entry.where(), quote(content), given);
    }
    tokens.put(entry_of(entry, /*is_special=*/false));
  }
  for (const std::string_view name : named_tokens) {
    if (const JsonCursor token = config[name]; !token.is_unset()) {
      tokens.add_special(token);
    } else if (const auto fallback = named_token(config, name)) {
      const Json content = *fallback;
      static const std::string place = "GPT2Tokenizer";
      tokens.add_special(JsonCursor(content, place));
    }
  }
  // transformers 5 renamed the key.
  const JsonCursor extra = config["extra_special_tokens"];
  const JsonCursor additional = config["additional_special_tokens"];
  const auto is_empty = [](const JsonCursor& list) { return list.is_unset() || list.value().empty(); };
  if (!is_empty(extra) && !is_empty(additional) && extra.value() != additional.value()) {
    additional.fail(fmt::format("the same as {}, or one of the two", extra.path()));
  }
  const JsonCursor& list = is_empty(extra) ? additional : extra;
  if (list.is_object()) {
    for (const auto& [name, token] : list.members()) tokens.add_special(token);
  } else if (!list.is_unset()) {
    for (const JsonCursor& token : list.elements()) tokens.add_special(token);
  }
  // transformers 5 takes any key of this form for a special token, 4 does not.
  for (const auto& [name, token] : config.members()) {
    if (!name.ends_with("_token") || !token.is_text() || token.text().empty()) continue;
    if (!tokens.contains(token.text())) token.refuse("one of the added tokens");
  }
}

/// The ByteLevel step of a pre-tokenizer, or null.
Json* byte_level_of(Json& pre_tokenizer) {
  const auto is_of_type = [](const Json& step, const char* type) {
    return step.is_object() && step.value("type", Json()) == type;
  };
  if (is_of_type(pre_tokenizer, "ByteLevel")) return &pre_tokenizer;
  if (!is_of_type(pre_tokenizer, "Sequence")) return nullptr;
  for (Json& step : pre_tokenizer["pretokenizers"]) {
    if (is_of_type(step, "ByteLevel")) return &step;
  }
  return nullptr;
}

/// Whether `step`, a part of a tokenizer.json that is not read yet, puts a space mark before texts: what a
/// Metaspace or Prepend in it says. Nothing without one.
std::optional<bool> puts_mark(const Json& step) {
  if (!step.is_object()) return std::nullopt;
  const Json type = step.value("type", Json());
  if (type == "Prepend") return true;
  if (type == "Metaspace") {
    return step.contains("prepend_scheme") ? step["prepend_scheme"] != "never"
                                           : step.value("add_prefix_space", Json(true)) != false;
  }
  for (const char* list : {"pretokenizers", "normalizers"}) {
    const auto steps = step.find(list);
    if (type != "Sequence" || steps == step.end()) continue;
    for (const Json& element : *steps) {
      if (const auto puts = puts_mark(element)) return puts;
    }
  }
  return std::nullopt;
}

void set_prefix_space(const JsonCursor& config, Json& document, const std::string& file) {
  constexpr const char* name = "add_prefix_space";
  const JsonCursor field = config[name];
  const auto contradict = [&](bool in_tokenizer) {
    throw InputError("{} is {}, but {} says {}; expected the same in both files", field.where(),
                     field.boolean(), file, in_tokenizer);
  };
  if (!field.is_unset()) {
    for (const char* part : {"pre_tokenizer", "normalizer"}) {
      if (!document.contains(part)) continue;
      const std::optional<bool> puts = puts_mark(document[part]);
      if (puts && *puts != field.boolean()) contradict(*puts);
    }
  }
  const auto found = document.find("pre_tokenizer");
  if (found == document.end()) return;
  Json& pre_tokenizer = *found;
  Json* byte_level = byte_level_of(pre_tokenizer);
  if (byte_level == nullptr || !byte_level->value(name, Json()).is_boolean()) return;  // the reader says so
  if (byte_level == &pre_tokenizer && is_gpt2(config) && (field.missing() || !field.is_unset())) {
    byte_level->at(name) = field.boolean_or(false);
  } else if (!field.is_unset() && field.boolean() != byte_level->at(name).get<bool>()) {
    contradict(byte_level->at(name).get<bool>());
  }
}

void refuse_other_tokenizers(const JsonCursor& config) {
  for (const char* name : {"split_special_tokens", "fix_mistral_regex"}) {
    if (config[name].boolean_or(false)) config[name].refuse("false");
  }
  const JsonCursor code = config["auto_map"];
  const bool has_code = code.is_object() ? !code["AutoTokenizer"].is_unset() : !code.is_unset();
  if (has_code) code.refuse("no code of its own for the tokenizer");
}

/// One of add_bos_token and add_eos_token beside the tokens that the post-processor puts at that place.
void check_edge(const JsonCursor& config, const char* key, const char* token_key,
                const std::optional<std::string>& found, const char* place, const std::string& file) {
  const JsonCursor field = config[key];
  if (field.is_unset()) return;
  const JsonCursor token = config[token_key];
  const std::optional<std::string> named = token.is_unset() ? std::nullopt : std::optional(content_of(token));
  const bool is_there = found && (!named || *named == *found);
  if (field.boolean() == is_there) return;
  throw InputError(
      "{} is {}, but the post_processor of {} puts {} {}; expected the same in both files (transformers 4 "
      "follows the one in some classes, transformers 5 the other)",
      field.where(), field.boolean(), file, found ? quote(*found) : "no token", place);
}

}  // namespace

void apply_tokenizer_config(const JsonCursor& config, Json& document, const std::string& file) {
  if (!config.is_object()) config.fail("an object");
  refuse_other_tokenizers(config);
  AddedTokenList tokens(document, file);
  add_tokens(config, tokens);
  set_prefix_space(config, document, file);
}

std::optional<std::string> named_token(const JsonCursor& names, std::string_view name) {
  const JsonCursor token = names[name];
  const bool has_default = name == "bos_token" || name == "eos_token" || name == "unk_token";
  if (token.missing() && has_default && is_gpt2(names)) return "<|endoftext|>";
  if (token.is_unset() || content_of(token).empty()) return std::nullopt;
  return content_of(token);
}

void check_older_file(const JsonCursor& names, const nlohmann::json& document) {
  if (!names.is_object()) names.fail("an object");
  std::set<std::string> known;
  if (const auto added = document.find("added_tokens"); added != document.end()) {
    for (const Json& entry : *added) {
      if (!entry.is_object()) continue;
      if (const auto text = entry.find("content"); text != entry.end() && text->is_string())
        known.insert(text->get<std::string>());
    }
  }
  const auto check = [&](const JsonCursor& place, const std::string& content) {
    if (content.empty() || known.contains(content)) return;
    throw InputError(
        "{}: the token {} is not among the added tokens of tokenizer.json; expected it there, or "
        "in tokenizer_config.json",
        place.where(), quote(content));
  };
  for (const auto& [key, value] : names.members()) {
    if (value.is_list()) {
      for (const JsonCursor& token : value.elements()) check(token, content_of(token));
    } else if (value.value().is_number()) {
      check(value, key);  // added_tokens.json: ids by token
    } else if (!value.is_unset()) {
      check(value, content_of(value));
    }
  }
}

void check_start_and_end(const JsonCursor& config, const PipelineParts& parts, const std::string& file) {
  const auto content = [&](const std::vector<std::int32_t>& ids, auto which) {
    return ids.empty() ? std::nullopt
                       : std::optional(parts.tokens[static_cast<std::size_t>(which(ids))]->text);
  };
  const auto first = [](const auto& ids) { return ids.front(); };
  const auto last = [](const auto& ids) { return ids.back(); };
  check_edge(config, "add_bos_token", "bos_token", content(parts.prefix, first), "first", file);
  check_edge(config, "add_eos_token", "eos_token", content(parts.suffix, last), "last", file);
}

}  // namespace mezzo
