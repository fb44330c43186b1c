#include "mezzo/data/normalizer.h"

#include <utility>

#include "mezzo/core/utf8.h"
#include "mezzo/data/byte_level.h"

namespace mezzo {
namespace {

/// A text on its way through the steps.
struct Passage {
  std::string text;
  PieceStart start;

  /// Notes that the first characters are gone.
  void lose_start() {
    if (start == PieceStart::text) start = PieceStart::middle;
  }

  /// Every character through `rewrite`(character, result), which appends what becomes of it.
  template <typename Rewrite>
  void rewrite(Rewrite&& rewrite) {
    std::string result;
    std::string_view rest = text;
    while (!rest.empty()) {
      const CodePoint c = first_code_point(rest);
      rewrite(c.value, result);
      if (result.empty()) lose_start();
      rest.remove_prefix(c.size);
    }
    text = std::move(result);
  }

  template <typename Predicate>
  void drop(Predicate&& is_dropped) {
    rewrite([&](char32_t c, std::string& result) {
      if (!is_dropped(c)) append_utf8(result, c);
    });
  }
};

void apply(NormalForm form, Passage& passage) { passage.text = normal_form(passage.text, form); }

void apply(const Normalizer::Strip& strip, Passage& passage) {
  std::string_view rest = passage.text;
  if (strip.right) {
    while (!rest.empty()) {
      const CodePoint c = last_code_point(rest);
      if (!is_white_space(c.value)) break;
      rest.remove_suffix(c.size);
    }
  }
  if (strip.left && passage.start != PieceStart::continuation) {
    while (!rest.empty()) {
      const CodePoint c = first_code_point(rest);
      if (!is_white_space(c.value)) break;
      rest.remove_prefix(c.size);
      passage.lose_start();
    }
  }
  passage.text = std::string(rest);
}

void apply(const Normalizer::Prepend& prepend, Passage& passage) {
  if (!passage.text.empty() && passage.start != PieceStart::continuation) {
    passage.text.insert(0, prepend.text);
  }
}

void apply(const Normalizer::Replace& step, Passage& passage) {
  if (step.content.empty()) {
    if (PatternSearch search(step.pattern, passage.text);
        search.next() && search.begin() == 0 && search.end() > 0) {
      passage.lose_start();
    }
  }
  passage.text = replace(step.pattern, passage.text, step.content);
}

void apply(Normalizer::LowerCase, Passage& passage) { passage.text = lower_case(passage.text); }
void apply(Normalizer::StripAccents, Passage& passage) { passage.drop(is_mark); }

/// The blocks of ideographs that BERT's code names.
bool is_chinese(char32_t c) {
  const auto within = [c](char32_t first, char32_t last) { return c >= first && c <= last; };
  return within(0x4E00, 0x9FFF) || within(0x3400, 0x4DBF) || within(0x20000, 0x2A6DF) ||
         within(0x2A700, 0x2B73F) || within(0x2B740, 0x2B81F) || within(0x2B920, 0x2CEAF) ||
         within(0xF900, 0xFAFF) || within(0x2F800, 0x2FA1F);
}

void apply(const Normalizer::Bert& bert, Passage& passage) {
  if (bert.clean_text) {
    passage.rewrite([](char32_t c, std::string& result) {
      const bool is_control = is_control_like(c) && c != '\t' && c != '\n' && c != '\r';
      if (c == 0 || c == 0xFFFD || is_control) return;
      append_utf8(result, is_white_space(c) ? U' ' : c);
    });
  }
  if (bert.separate_ideographs) {
    passage.rewrite([](char32_t c, std::string& result) {
      if (is_chinese(c)) result += ' ';
      append_utf8(result, c);
      if (is_chinese(c)) result += ' ';
    });
  }
  if (bert.strip_accents) {
    apply(NormalForm::nfd, passage);
    passage.drop(is_nonspacing_mark);
  }
  if (bert.lower_case) apply(Normalizer::LowerCase{}, passage);
}

void apply(const CharsMap& map, Passage& passage) {
  // Hugging Face does not count what the map drops at the start.
  passage.text = map.normalize(passage.text);
}

void apply(Normalizer::ByteAlphabet, Passage& passage) { passage.text = byte_level_text(passage.text); }

}  // namespace

std::string Normalizer::normalize(std::string_view text, PieceStart& start) const {
  Passage passage{std::string(text), start};
  for (const Step& step : steps_) {
    std::visit([&](const auto& known) { apply(known, passage); }, step);
  }
  start = passage.start;
  return std::move(passage.text);
}

Normalizer Normalizer::read(const JsonCursor& field) {
  Normalizer normalizer;
  normalizer.read_step(field);
  return normalizer;
}

void Normalizer::read_step(const JsonCursor& field) {
  if (field.is_unset()) return;
  const std::string type = field["type"].text();
  constexpr std::pair<const char*, NormalForm> forms[] = {{"NFC", NormalForm::nfc},
                                                          {"NFD", NormalForm::nfd},
                                                          {"NFKC", NormalForm::nfkc},
                                                          {"NFKD", NormalForm::nfkd}};
  for (const auto& [name, form] : forms) {
    if (type == name) {
      steps_.emplace_back(form);
      return;
    }
  }
  if (type == "Sequence") {
    for (const JsonCursor& element : field["normalizers"].elements()) read_step(element);
  } else if (type == "Strip") {
    steps_.emplace_back(Strip{field["strip_left"].boolean(), field["strip_right"].boolean()});
  } else if (type == "Prepend") {
    steps_.emplace_back(Prepend{field["prepend"].text()});
  } else if (type == "Replace") {
    steps_.emplace_back(Replace{Pattern::read(field["pattern"]), field["content"].text()});
  } else if (type == "Lowercase") {
    steps_.emplace_back(LowerCase{});
  } else if (type == "StripAccents") {
    steps_.emplace_back(StripAccents{});
  } else if (type == "BertNormalizer") {
    const bool lower = field["lowercase"].boolean();
    steps_.emplace_back(Bert{field["clean_text"].boolean(), field["handle_chinese_chars"].boolean(),
                             field["strip_accents"].boolean_or(lower), lower});
  } else if (type == "Precompiled") {
    // An empty map is that of a model that was trained with the rule "identity".
    if (const JsonCursor map = field["precompiled_charsmap"]; !map.is_unset() && !map.text().empty()) {
      steps_.emplace_back(CharsMap(map.text(), map.where()));
    }
  } else if (type == "ByteLevel") {
    steps_.emplace_back(ByteAlphabet{});
  } else {
    field.refuse(
        "NFC, NFD, NFKC, NFKD, Strip, StripAccents, Lowercase, Prepend, Replace, Precompiled, "
        "BertNormalizer, "
        "ByteLevel or a Sequence of these");
  }
}

}  // namespace mezzo
