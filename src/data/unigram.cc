#include "mezzo/data/unigram.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

constexpr double unknown_penalty = 10.0;
constexpr std::int32_t no_token = -1;

}  // namespace

Unigram::Unigram(Vocabulary vocabulary, std::vector<double> scores, std::optional<std::int32_t> unknown,
                 bool byte_fallback)
    : vocabulary_(std::move(vocabulary)),
      scores_(std::move(scores)),
      unknown_score_(std::ranges::min(scores_) - unknown_penalty),
      unknown_(unknown) {
  if (byte_fallback) fallback_ids_ = vocabulary_.fallback_ids();
  for (const auto& [text, id] : vocabulary_.ids()) {
    std::uint32_t node = 0;
    for (const char byte : text) {
      const std::uint64_t edge = std::uint64_t{node} << 8 | static_cast<unsigned char>(byte);
      const auto [next, is_new] = edges_.emplace(edge, static_cast<std::uint32_t>(trie_ids_.size()));
      if (is_new) trie_ids_.push_back(no_token);
      node = next->second;
    }
    if (node != 0) trie_ids_[node] = id;
  }
}

Unigram Unigram::read(const JsonCursor& model, Vocabulary vocabulary) {
  const JsonCursor field = model["vocab"];
  if (!field.is_list()) field.fail("a list of tokens and their scores");
  std::vector<double> scores;
  for (const auto& entry : field.value()) scores.push_back(entry[1].get<double>());
  std::optional<std::int32_t> unknown;
  if (const JsonCursor id = model["unk_id"]; !id.is_unset()) {
    unknown = static_cast<std::int32_t>(id.integer(0, static_cast<std::int64_t>(scores.size()) - 1));
  }
  return {std::move(vocabulary), std::move(scores), unknown, model["byte_fallback"].boolean_or(false)};
}

/// The ids of a part of the best path: a token, or characters without one.
void Unigram::append(std::string_view text, std::vector<std::int32_t>& ids) const {
  if (const auto id = vocabulary_.find(text)) return ids.push_back(*id);
  if (!fallback_ids_.empty() && append_fallback(fallback_ids_, text, ids)) return;
  ids.push_back(*unknown_);
}

void Unigram::encode(std::string_view piece, Workspace& workspace, std::vector<std::int32_t>& ids) const {
  auto& nodes = workspace.nodes;
  nodes.assign(piece.size() + 1, {0.0, 0, no_token});
  const auto offer = [&](std::size_t start, std::size_t end, double score, std::int32_t id) {
    const double sum = nodes[start].score + score;
    if (nodes[end].id == no_token || sum > nodes[end].score) nodes[end] = {sum, start, id};
  };
  for (std::size_t start = 0; start < piece.size();) {
    const CodePoint c = first_code_point(piece.substr(start));
    bool is_known = false;  // whether the character is a token by itself
    std::uint32_t node = 0;
    for (std::size_t end = start; end < piece.size(); ++end) {
      const auto next = edges_.find(std::uint64_t{node} << 8 | static_cast<unsigned char>(piece[end]));
      if (next == edges_.end()) break;
      node = next->second;
      if (trie_ids_[node] == no_token) continue;
      offer(start, end + 1, scores_[static_cast<std::size_t>(trie_ids_[node])], trie_ids_[node]);
      is_known |= end + 1 == start + c.size;
    }
    if (!is_known) {
      if (!unknown_) {
        throw InputError("{} has no token for the character {} (U+{:04X}), and there is no unk_id",
                         vocabulary_.where(), quote(piece.substr(start, c.size)),
                         static_cast<std::uint32_t>(c.value));
      }
      offer(start, start + c.size, unknown_score_, *unknown_);
    }
    start += c.size;
  }

  auto& ends = workspace.ends;  // of the parts, the last first; unknown characters in a row are one
  ends.clear();
  bool in_unknown = false;
  for (std::size_t end = piece.size(); end > 0; end = nodes[end].start) {
    const bool is_unknown = unknown_ && nodes[end].id == *unknown_;
    if (!(is_unknown && in_unknown)) ends.push_back(end);
    in_unknown = is_unknown;
  }
  std::size_t start = 0;
  for (; !ends.empty(); ends.pop_back()) {
    append(piece.substr(start, ends.back() - start), ids);
    start = ends.back();
  }
}

}  // namespace mezzo
