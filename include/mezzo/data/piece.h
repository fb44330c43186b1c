#pragma once
// Where a piece of text stands: tokenizers put space marks at the start of a text.

namespace mezzo {

enum class PieceStart {
  text,          ///< the piece is where the text begins
  middle,        ///< it is behind another piece
  continuation,  ///< it is where the text begins, and that goes on where another text ended
};

}  // namespace mezzo
