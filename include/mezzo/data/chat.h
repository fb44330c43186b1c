#pragma once
// Records that are conversations, and their tokens.
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "mezzo/data/chat_template.h"
#include "mezzo/data/tokenizer.h"

namespace mezzo {

/// The turns of a record: `messages` with `role` and `content`, or ShareGPT's `conversations` with `from`
/// (human, gpt, system) and `value`. Members that are null are left out, as transformers does; others are
/// what the template makes of them. InputError naming `where` and the place.
Messages messages_of(const nlohmann::json& record, const std::string& where);

/// The tokens of a conversation up to the last one that counts.
struct ChatTokens {
  std::vector<std::int32_t> ids;
  std::vector<std::pair<std::int32_t, std::int32_t>> counted;  ///< ranges of ids, in order; not empty
  std::int64_t whole_tokens = 0;                               ///< before any was cut
};

/// The ids of the whole text, nothing put before it: the template writes its own start token. Of one with
/// more than `max_length` tokens the oldest turns behind the system's go, up to a question, until the rest
/// fits; and where the last question does not fit either, tokens go from the left, but for the start token.
/// `append_eos`: the tokenizer's end token follows the last answer where the template puts nothing behind it.
/// InputError naming `where` for what the template refuses, for a conversation without a word of the
/// assistant's, and where there is no end token to append.
ChatTokens chat_tokens(Messages messages, const ChatTemplate& chat, const Tokenizer& tokenizer,
                       std::int64_t max_length, bool append_eos, const std::string& where);

}  // namespace mezzo
