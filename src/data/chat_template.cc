#include "mezzo/data/chat_template.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"
#include "mezzo/io/files.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t max_template_bytes = std::uint64_t{1} << 20;  // far above any model's

/// Without the white space at its end.
std::size_t trimmed_size(std::string_view text) {
  while (!text.empty() && is_white_space(last_code_point(text).value))
    text.remove_suffix(last_code_point(text).size);
  return text.size();
}

/// The source at `field`: a text, or the entry named "default" of a list.
std::optional<std::string> source_in(const JsonCursor& field) {
  if (field.is_unset()) return std::nullopt;
  if (!field.is_list()) return field.text();
  for (const JsonCursor& entry : field.elements()) {
    if (entry["name"].text() == "default") return entry["template"].text();
  }
  field.fail("a template named \"default\" among those listed");
}

using Ranges = std::vector<std::pair<std::int32_t, std::int32_t>>;

/// Bytes [begin, end) of each token in the text; nothing where the tokens are not found there.
std::optional<std::vector<TextSpan>> places_of(std::string_view text, const std::vector<std::int32_t>& ids,
                                               const Tokenizer& tokenizer) {
  std::vector<TextSpan> places;
  std::size_t position = 0;
  // Decoders drop the space before the first token: each is decoded behind another one.
  const std::string before = ids.empty() ? "" : tokenizer.decode({ids.data(), 1});
  for (const std::int32_t id : ids) {
    const std::int32_t pair[] = {ids[0], id};
    std::string bytes = tokenizer.decode(pair);
    if (!bytes.starts_with(before)) return std::nullopt;
    bytes.erase(0, before.size());
    const auto stands_at = [&](std::size_t at, std::string_view piece) {
      return text.substr(at).starts_with(piece);
    };
    std::size_t begin = position;
    std::string_view piece = bytes;
    if (!stands_at(begin, piece)) {
      const std::string_view without = piece.starts_with(' ') ? piece.substr(1) : piece;
      while (!stands_at(begin, piece) && !stands_at(begin, without)) {
        const std::size_t size = utf8_length(text.substr(begin));  // 0 at the end, and within a character
        if (size == 0 || !is_white_space(first_code_point(text.substr(begin)).value)) return std::nullopt;
        begin += size;
      }
      if (!stands_at(begin, piece)) piece = without;
    }
    position = begin + piece.size();
    places.push_back({begin, position});
  }
  if (trimmed_size(text.substr(position)) != 0) return std::nullopt;
  return places;
}

}  // namespace

ChatTemplate::ChatTemplate(std::string_view source, std::string name, nlohmann::ordered_json variables)
    : name_(std::move(name)),
      source_(source),
      template_(source, name_),
      variables_(std::make_unique<const nlohmann::ordered_json>(std::move(variables))) {}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::optional<ChatTemplate> ChatTemplate::load(const std::string& directory, const Tokenizer& tokenizer) {
  const auto path_of = [&](const char* name) { return (std::filesystem::path(directory) / name).string(); };
  const auto is_there = [](const std::string& path) {
    std::error_code ignored;  // what cannot be looked at is reported when it is opened
    return std::filesystem::exists(path, ignored);
  };
  nlohmann::ordered_json variables = nlohmann::ordered_json::object();
  const std::string config_path = path_of("tokenizer_config.json");
  const Json config = is_there(config_path) ? read_json_file(config_path) : Json::object();
  const JsonCursor root(config, config_path);
  for (const char* name : {"unk_token", "pad_token", "sep_token", "cls_token", "mask_token"}) {
    const JsonCursor token = root[name];
    if (!token.is_unset()) variables[name] = token.is_object() ? token["content"].text() : token.text();
  }
  if (const auto token = tokenizer.bos_token()) variables["bos_token"] = token->text;
  if (const auto token = tokenizer.eos_token()) variables["eos_token"] = token->text;

  if (const std::string path = path_of("chat_template.jinja"); is_there(path))
    return ChatTemplate(read_file(path, max_template_bytes), path, std::move(variables));
  if (const auto source = source_in(root["chat_template"]))
    return ChatTemplate(*source, config_path + ": chat_template", std::move(variables));
  if (const std::string path = path_of("chat_template.json"); is_there(path)) {
    const Json document = read_json_file(path);
    if (const auto source = source_in(JsonCursor(document, path)["chat_template"]))
      return ChatTemplate(*source, path + ": chat_template", std::move(variables));
  }
  return std::nullopt;
}

namespace {
nlohmann::ordered_json inputs(nlohmann::ordered_json variables, const Messages& messages,
                              bool add_generation_prompt) {
  variables["messages"] = messages;
  variables["tools"] = nullptr;
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = add_generation_prompt;
  return variables;
}
}  // namespace

std::string ChatTemplate::render(const Messages& messages, bool add_generation_prompt) const {
  return template_.render(inputs(*variables_, messages, add_generation_prompt)).text;
}

ChatTemplate::Conversation ChatTemplate::conversation(const Messages& messages) const {
  JinjaTemplate::Rendered whole = template_.render(inputs(*variables_, messages, false));
  Conversation found{.text = std::move(whole.text), .spans = std::move(whole.generations)};
  if (template_.has_generation()) return found;
  for (std::size_t turn = 0; turn < messages.size(); ++turn) {
    if (messages[turn].at("role") == "assistant") found.spans.push_back(turn_of(found.text, messages, turn));
  }
  return found;
}

TextSpan ChatTemplate::turn_of(const std::string& text, const Messages& messages, std::size_t turn) const {
  constexpr const char* remedy =
      "; put {% generation %} and {% endgeneration %} around what the assistant says in a "
      "chat_template.jinja";
  Messages until(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(turn));
  const std::string before = render(until, true);
  if (!text.starts_with(before)) {
    throw InputError("{}: message {} does not begin where the generation prompt ends{}", name_, turn + 1,
                     remedy);
  }
  until.push_back(messages[turn]);
  const std::string with = render(until, false);
  // What closes a turn is what stands behind a text that no template changes.
  constexpr std::string_view mark = "0123456789";
  until.back()["content"] = mark;
  const std::string marked = render(until, false);
  const std::size_t at = marked.rfind(mark);
  if (at == std::string::npos)
    throw InputError("{}: message {} is not in the conversation's text{}", name_, turn + 1, remedy);
  const std::string_view behind = std::string_view(marked).substr(at + mark.size());
  std::vector<std::string_view> closings = {behind.substr(0, trimmed_size(behind))};
  // Some templates end a whole conversation with an end token of its own.
  const std::string end_token = variables_->value("eos_token", "");
  if (!end_token.empty() && closings[0].ends_with(end_token)) {
    const std::string_view shorter = closings[0].substr(0, closings[0].size() - end_token.size());
    closings.push_back(shorter.substr(0, trimmed_size(shorter)));
  }
  const std::string_view rest = std::string_view(text).substr(before.size());
  for (const std::string_view closing : closings) {
    const std::string_view body =
        std::string_view(with).substr(0, with.size() - behind.size() + closing.size());
    if (text.starts_with(body) && body.size() >= before.size()) return {before.size(), body.size()};
    for (std::size_t end = 0; !closing.empty() && (end = rest.find(closing, end)) != std::string_view::npos;
         ++end) {
      if (body.ends_with(rest.substr(0, end + closing.size())))
        return {before.size(), before.size() + end + closing.size()};
    }
  }
  throw InputError("{}: message {} is written in another way when others follow{}", name_, turn + 1, remedy);
}

Ranges tokens_in(const std::vector<TextSpan>& spans, std::string_view text,
                 const std::vector<std::int32_t>& ids, const Tokenizer& tokenizer) {
  const std::optional<std::vector<TextSpan>> places = places_of(text, ids, tokenizer);
  Ranges ranges;
  const auto add = [&](std::size_t begin, std::size_t end) {
    if (begin < end) ranges.emplace_back(static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end));
  };
  if (places) {
    std::size_t token = 0;
    for (const TextSpan& span : spans) {
      while (token < ids.size() && (*places)[token].end <= span.begin) ++token;
      const std::size_t first = token;
      while (token < ids.size() && (*places)[token].begin < span.end) ++token;
      add(first, token);
    }
    return ranges;
  }
  const auto tokens_before = [&](std::size_t border) {
    const std::vector<std::int32_t> prefix = tokenizer.encode(text.substr(0, border), false);
    if (prefix.size() > ids.size() || !std::equal(prefix.begin(), prefix.end(), ids.begin())) {
      throw InputError(
          "the tokenizer changes the text, so that its tokens do not say where the assistant's turns are");
    }
    return prefix.size();
  };
  for (const TextSpan& span : spans) add(tokens_before(span.begin), tokens_before(span.end));
  return ranges;
}

}  // namespace mezzo
