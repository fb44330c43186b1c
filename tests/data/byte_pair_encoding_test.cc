// The merge loop against the definition, and the number of its steps.
#include "mezzo/data/byte_pair_encoding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <optional>
#include <random>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

using Ids = std::vector<std::int32_t>;

struct Token {
  std::string bytes;
  std::int32_t id;
};

BytePairEncoding encoding_of(const std::vector<Token>& tokens,
                             const std::vector<BytePairEncoding::Merge>& merges,
                             BytePairEncoding::Options options = {}) {
  Vocabulary::Ids ids;
  for (const Token& token : tokens) ids.emplace(token.bytes, token.id);
  return {Vocabulary(std::move(ids), "here"), merges, std::move(options)};
}

/// Tokens of the first letters, and random merges of whatever there is to at most `longest` bytes.
struct Model {
  std::vector<Token> tokens;
  std::vector<BytePairEncoding::Merge> merges;

  Model(std::uint32_t seed, std::size_t count, std::size_t letters = 8,
        std::size_t longest = std::numeric_limits<std::size_t>::max()) {
    std::mt19937 random(seed);
    std::map<std::string, std::int32_t> ids;
    const auto add = [&](const std::string& bytes) {
      const auto [entry, is_new] = ids.emplace(bytes, static_cast<std::int32_t>(ids.size()));
      if (is_new) tokens.push_back({bytes, entry->second});
      return entry->second;
    };
    for (std::size_t i = 0; i < letters; ++i) add(std::string(1, static_cast<char>('a' + i)));
    while (merges.size() < count) {
      const auto left = tokens[random() % tokens.size()];
      const auto right = tokens[random() % tokens.size()];
      if (left.bytes.size() + right.bytes.size() > longest) continue;
      merges.push_back({left.id, right.id, add(left.bytes + right.bytes)});
    }
    std::shuffle(merges.begin(), merges.end(), random);
  }

  /// By the definition: again and again the leftmost pair of the lowest rank.
  Ids encode(std::string_view piece) const {
    std::map<std::pair<std::int32_t, std::int32_t>, std::size_t> ranks;
    for (std::size_t rank = 0; rank < merges.size(); ++rank)
      ranks[{merges[rank].left, merges[rank].right}] = rank;
    Ids ids;
    for (const char c : piece) ids.push_back(c - 'a');
    for (;;) {
      std::optional<std::pair<std::size_t, std::size_t>> best;  // rank, place
      for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
        const auto found = ranks.find({ids[i], ids[i + 1]});
        if (found != ranks.end() && (!best || found->second < best->first)) best = {found->second, i};
      }
      if (!best) return ids;
      ids[best->second] = merges[best->first].result;
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best->second) + 1);
    }
  }
};

TEST(BytePairEncoding, FollowsTheDefinition) {
  std::mt19937 random(5);
  BytePairEncoding::Workspace workspace;
  for (std::uint32_t seed = 0; seed < 60; ++seed) {
    const Model model(seed, 1 + 3 * seed);
    const BytePairEncoding encoding = encoding_of(model.tokens, model.merges);
    for (const std::size_t size : {0, 1, 2, 3, 7, 31, 33, 257}) {
      std::string piece(size, 'a');
      for (char& c : piece) c = static_cast<char>('a' + random() % (1 + seed % 8));
      Ids ids;
      encoding.encode(piece, workspace, ids);
      EXPECT_EQ(ids, model.encode(piece)) << "seed " << seed << ": " << piece;
    }
  }
}

/// Few letters and short tokens, so that nearly all pairs merge and often the queue holds pairs that other
/// merges have taken apart: one that is not recognised lets the pair in its place merge before its turn.
TEST(BytePairEncoding, PairsThatAreGoneDoNotMergeTheirSuccessors) {
  std::mt19937 random(11);
  BytePairEncoding::Workspace workspace;
  for (std::uint32_t seed = 0; seed < 400; ++seed) {
    const std::size_t letters = 1 + seed % 4;
    const Model model(seed, 2 + random() % 40, letters, 5);
    const BytePairEncoding encoding = encoding_of(model.tokens, model.merges);
    for (int text = 0; text < 50; ++text) {
      std::string piece(2 + random() % 30, 'a');
      for (char& c : piece) c = static_cast<char>('a' + random() % letters);
      Ids ids;
      encoding.encode(piece, workspace, ids);
      ASSERT_EQ(ids, model.encode(piece)) << "seed " << seed << ": " << piece;
    }
  }
}

TEST(BytePairEncoding, StepsGrowLinearly) {
  // aa, aaaa, aaaaaaaa, ...: at most one entry a pair of bytes, and two for each of at most n - 1 merges.
  for (const std::size_t size : {1'000u, 1'000'000u}) {
    std::vector<Token> tokens = {{"a", 0}};
    std::vector<BytePairEncoding::Merge> merges;
    for (std::int32_t i = 0; i < 12; ++i) {
      tokens.push_back({tokens.back().bytes + tokens.back().bytes, i + 1});
      merges.push_back({i, i, i + 1});
    }
    const BytePairEncoding encoding = encoding_of(tokens, merges);
    BytePairEncoding::Workspace workspace;
    Ids ids;
    encoding.encode(std::string(size, 'a'), workspace, ids);
    EXPECT_LE(workspace.steps, 3 * size);
    EXPECT_GE(workspace.steps, size - 1);
    EXPECT_EQ(ids.size(), (size >> 12) + static_cast<std::size_t>(std::popcount(size & 0xFFF)));
  }
}

TEST(BytePairEncoding, AWholePieceCountsBeforeMergesOnlyWhenAsked) {
  const std::vector<Token> tokens = {{"a", 0}, {"b", 1}, {"ab", 2}, {"aba", 3}};
  const std::vector<BytePairEncoding::Merge> merges = {{0, 1, 2}};
  BytePairEncoding::Workspace workspace;
  for (const bool ignore_merges : {false, true}) {
    const BytePairEncoding encoding = encoding_of(tokens, merges, {.ignore_merges = ignore_merges});
    Ids ids;
    encoding.encode("aba", workspace, ids);
    EXPECT_EQ(ids, ignore_merges ? Ids{3} : (Ids{2, 0}));
    encoding.encode("", workspace, ids);
    EXPECT_THROW(encoding.encode("abc", workspace, ids), InputError);
  }
}

TEST(BytePairEncoding, TheLaterOfTwoMergesOfAPairCounts) {
  const std::vector<Token> tokens = {{"a", 0}, {"b", 1}, {"ab", 2}, {"bb", 3}};
  const BytePairEncoding encoding = encoding_of(tokens, {{0, 1, 2}, {1, 1, 3}, {0, 1, 2}});
  BytePairEncoding::Workspace workspace;
  Ids ids;
  encoding.encode("abb", workspace, ids);
  EXPECT_EQ(ids, (Ids{0, 3}));
}

}  // namespace
}  // namespace mezzo
