#include "mezzo/data/sentencepiece_model.h"

#include <sentencepiece_processor.h>

#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"

namespace mezzo {
namespace {

constexpr std::string_view mark = "\u2581";

// A further normalizer_spec (field 3 of a ModelProto, a message of 2 bytes) with add_dummy_prefix (its field
// 3) false: a message that stands twice in a serialized one is merged, and the later value counts.
constexpr std::string_view without_prefix("\x1a\x02\x18\x00", 4);

}  // namespace

struct SentencePieceModel::Processors {
  sentencepiece::SentencePieceProcessor whole;     ///< the model as it is
  sentencepiece::SentencePieceProcessor in_place;  ///< puts nothing before a text
  std::string file;
  std::string anchor;          ///< a text that stands before one to keep its blanks ...
  std::size_t anchor_ids = 0;  ///< ... and the number of its tokens

  void encode(const sentencepiece::SentencePieceProcessor& processor, std::string_view text,
              std::vector<int>& ids) const {
    if (const auto status = processor.Encode(text, &ids); !status.ok()) {
      throw InputError("{}: SentencePiece does not encode a text of {} bytes: {}", file, text.size(),
                       status.ToString());
    }
  }
  std::optional<std::string> text_of(int id) const {
    return id < 0 ? std::nullopt : std::optional(whole.IdToPiece(id));
  }
};

SentencePieceModel::SentencePieceModel(std::string_view serialized, bool legacy, std::string file)
    : processors_(std::make_unique<Processors>()), legacy_(legacy) {
  Processors& p = *processors_;
  p.file = std::move(file);
  const auto load = [&](sentencepiece::SentencePieceProcessor& processor, std::string_view bytes) {
    if (const auto status = processor.LoadFromSerializedProto(bytes); !status.ok()) {
      throw InputError("{} is no SentencePiece model: {}", p.file, status.ToString());
    }
  };
  load(p.whole, serialized);
  load(p.in_place, std::string(serialized).append(without_prefix));
  p.anchor = unknown().value_or("<unk>");
  std::vector<int> ids;
  p.encode(p.in_place, p.anchor, ids);
  p.anchor_ids = ids.size();
}

SentencePieceModel::SentencePieceModel(SentencePieceModel&&) noexcept = default;
SentencePieceModel& SentencePieceModel::operator=(SentencePieceModel&&) noexcept = default;
SentencePieceModel::~SentencePieceModel() = default;

void SentencePieceModel::encode(std::string_view piece, PieceStart start, Workspace& workspace,
                                std::vector<std::int32_t>& ids) const {
  const Processors& p = *processors_;
  if (legacy_ && start != PieceStart::continuation) {
    p.encode(p.whole, piece, workspace.ids);
    ids.insert(ids.end(), workspace.ids.begin(), workspace.ids.end());
    return;
  }
  std::string text;
  if (!legacy_) {
    for (std::size_t at; (at = piece.find(mark)) != std::string_view::npos;
         piece.remove_prefix(at + mark.size()))
      text.append(piece.substr(0, at)) += ' ';
  }
  text += piece;
  if (start == PieceStart::text && puts_mark()) text.insert(0, mark);
  // A model may drop the blanks that a text starts with: behind the anchor they are inside of one.
  const bool keeps_blank =
      text.starts_with(mark) || text.starts_with(' ') ||
      (start == PieceStart::continuation && is_white_space(first_code_point(text).value));
  p.encode(p.in_place, keeps_blank ? p.anchor + text : text, workspace.ids);
  const std::size_t skipped = keeps_blank && workspace.ids.size() >= p.anchor_ids ? p.anchor_ids : 0;
  ids.insert(ids.end(), workspace.ids.begin() + static_cast<std::ptrdiff_t>(skipped), workspace.ids.end());
}

Vocabulary::Ids SentencePieceModel::pieces() const {
  Vocabulary::Ids ids;
  for (int id = 0; id < processors_->whole.GetPieceSize(); ++id) ids[processors_->whole.IdToPiece(id)] = id;
  return ids;
}

std::optional<std::string> SentencePieceModel::bos() const {
  return processors_->text_of(processors_->whole.bos_id());
}
std::optional<std::string> SentencePieceModel::eos() const {
  return processors_->text_of(processors_->whole.eos_id());
}
std::optional<std::string> SentencePieceModel::unknown() const {
  return processors_->text_of(processors_->whole.unk_id());
}

bool SentencePieceModel::puts_mark() const {
  std::vector<int> whole, in_place;
  processors_->encode(processors_->whole, ".", whole);
  processors_->encode(processors_->in_place, ".", in_place);
  return whole != in_place;
}

bool SentencePieceModel::drops_blanks() const {
  std::vector<int> blanks;
  processors_->encode(processors_->in_place, "  ", blanks);
  return blanks.empty();
}

}  // namespace mezzo
