#include "mezzo/data/chat.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;

const std::string& text_of(const Json& message, const char* field, const std::string& where) {
  const auto found = message.find(field);
  if (found == message.end()) throw InputError("{}: {} is missing", where, field);
  if (!found->is_string())
    throw InputError("{}: {} is {}, expected a string", where, field, found->type_name());
  return found->get_ref<const std::string&>();
}

std::string role_of_speaker(const std::string& from, const std::string& where) {
  if (from == "human" || from == "user") return "user";
  if (from == "gpt" || from == "assistant") return "assistant";
  if (from == "system") return "system";
  throw InputError("{}: from is {}, expected human, gpt or system", where, quote(from));
}

/// A conversation of which the oldest turns are dropped: the first `kept` (the system's) stay, and `from` on.
Messages without_oldest(const Messages& messages, std::size_t kept, std::size_t from) {
  Messages rest(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(kept));
  rest.insert(rest.end(), messages.begin() + static_cast<std::ptrdiff_t>(from), messages.end());
  return rest;
}

std::string_view without_blanks_behind(std::string_view text) {
  return text.substr(0, text.find_last_not_of(" \t\r\n") + 1);
}

/// Whether a conversation's text ends with what the assistant says, so that nothing closes its turn.
bool ends_open(const Messages& messages, const ChatTemplate::Conversation& conversation) {
  const auto last = std::ranges::find_if(messages.rbegin(), messages.rend(), [](const auto& message) {
    return message.at("role") == "assistant";
  });
  if (last == messages.rend() || conversation.spans.empty()) return false;
  const std::string_view text = without_blanks_behind(conversation.text);
  if (conversation.spans.back().end < text.size()) return false;
  const std::string_view words = without_blanks_behind(last->at("content").get_ref<const std::string&>());
  return !words.empty() && text.ends_with(words);
}

ChatTokens whole_tokens(const Messages& messages, const ChatTemplate& chat, const Tokenizer& tokenizer,
                        bool append_eos) {
  const ChatTemplate::Conversation conversation = chat.conversation(messages);
  ChatTokens tokens{.ids = tokenizer.encode(conversation.text, false), .counted = {}};
  tokens.counted = tokens_in(conversation.spans, conversation.text, tokens.ids, tokenizer);
  if (tokens.counted.empty()) return tokens;
  tokens.ids.resize(static_cast<std::size_t>(tokens.counted.back().second));
  if (append_eos && ends_open(messages, conversation)) {
    const std::optional<std::int32_t> end = tokenizer.end_token();
    if (!end) {
      throw InputError(
          "the chat template puts nothing behind the last answer, and the tokenizer names no end token "
          "(eos_token in tokenizer_config.json); expected one, or data.task.append_eos: false");
    }
    tokens.ids.push_back(*end);
    ++tokens.counted.back().second;
  }
  return tokens;
}

/// Leaves `count` tokens at the right, and the start token where there is one.
void cut_left(ChatTokens& tokens, std::int64_t count, const Tokenizer& tokenizer) {
  const bool has_start = tokens.ids[0] == tokenizer.start_token();
  const auto first = has_start ? tokens.ids.begin() + 1 : tokens.ids.begin();
  const auto gone = static_cast<std::int32_t>(static_cast<std::int64_t>(tokens.ids.size()) - count);
  tokens.ids.erase(first, first + gone);
  for (auto& [begin, end] : tokens.counted) {
    begin = std::max(begin - gone, has_start ? 1 : 0);
    end -= gone;
  }
}

}  // namespace

Messages messages_of(const Json& record, const std::string& where) {
  const auto standard = record.find("messages");
  const auto share_gpt = record.find("conversations");
  if ((standard == record.end()) == (share_gpt == record.end())) {
    throw InputError("{}: {} of the fields messages and conversations; expected one of the two", where,
                     standard == record.end() ? "neither" : "both");
  }
  const bool is_standard = standard != record.end();
  const Json& list = is_standard ? *standard : *share_gpt;
  const char* const name = is_standard ? "messages" : "conversations";
  if (!list.is_array() || list.empty()) {
    throw InputError("{}: {} is {}, expected a list of messages", where, name,
                     list.is_array() ? "an empty list" : list.type_name());
  }
  Messages messages;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Json& entry = list[i];
    const std::string place = fmt::format("{}: {}[{}]", where, name, i);
    if (!entry.is_object()) throw InputError("{} is {}, expected an object", place, entry.type_name());
    nlohmann::ordered_json& message = messages.emplace_back();
    const char* const speaker = is_standard ? "role" : "from";
    const char* const words = is_standard ? "content" : "value";
    const std::string& role = text_of(entry, speaker, place);
    message["role"] = is_standard ? role : role_of_speaker(role, place);
    message["content"] = text_of(entry, words, place);
    for (const auto& [key, value] : entry.items()) {
      if (key != speaker && key != words && !value.is_null() && !message.contains(key)) message[key] = value;
    }
  }
  return messages;
}

ChatTokens chat_tokens(Messages messages, const ChatTemplate& chat, const Tokenizer& tokenizer,
                       std::int64_t max_length, bool append_eos, const std::string& where) {
  try {
    ChatTokens tokens = whole_tokens(messages, chat, tokenizer, append_eos);
    const auto all = static_cast<std::int64_t>(tokens.ids.size());
    if (static_cast<std::int64_t>(tokens.ids.size()) > max_length) {
      const std::size_t kept = messages[0].at("role") == "system" ? 1 : 0;
      std::vector<std::size_t> starts;  // of what may be left: a question that has an answer
      std::size_t last_answer = messages.size() - 1;
      while (last_answer > 0 && messages[last_answer].at("role") != "assistant") --last_answer;
      for (std::size_t i = kept + 1; i < last_answer; ++i) {
        if (messages[i].at("role") == "user" && messages[i - 1].at("role") != "user") starts.push_back(i);
      }
      messages.resize(last_answer + 1);
      const auto is_too_long = [&](std::size_t start) {
        const std::string text = chat.render(without_oldest(messages, kept, start), false);
        return static_cast<std::int64_t>(tokenizer.encode(text, false).size()) > max_length;
      };
      const auto fits = std::ranges::partition_point(starts, is_too_long);
      if (!starts.empty()) {
        const std::size_t start = fits == starts.end() ? starts.back() : *fits;
        tokens = whole_tokens(without_oldest(messages, kept, start), chat, tokenizer, append_eos);
      }
      if (static_cast<std::int64_t>(tokens.ids.size()) > max_length) cut_left(tokens, max_length, tokenizer);
    }
    // The first token has nothing before it that could predict it.
    for (auto& range : tokens.counted) range.first = std::max(range.first, 1);
    std::erase_if(tokens.counted, [](const auto& range) { return range.first >= range.second; });
    if (tokens.counted.empty()) throw InputError("the assistant says nothing in this conversation");
    tokens.whole_tokens = all;
    return tokens;
  } catch (const InputError& error) {
    throw InputError("{}: {}", where, error.what());
  }
}

}  // namespace mezzo
