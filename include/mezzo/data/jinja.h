#pragma once
// The part of the template language Jinja that chat templates are written in (docs/chat.md), read and
// rendered as transformers does: Jinja 3.1 with trim_blocks, lstrip_blocks, break and continue, and {%
// generation %}.
#include <cstddef>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace mezzo {

namespace jinja {
struct Tree;
}

/// Bytes [begin, end) of a text.
struct TextSpan {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool operator==(const TextSpan&) const = default;
};

/// A template that has been read. Immutable: one may serve several threads.
class JinjaTemplate {
 public:
  struct Rendered {
    std::string text;
    std::vector<TextSpan> generations;  ///< what {% generation %} encloses, in order
  };

  /// `name` stands before the line in messages. InputError for a source that is no template or uses what is
  /// not served, wherever in it that stands.
  JinjaTemplate(std::string_view source, std::string name);
  JinjaTemplate(JinjaTemplate&&) noexcept;
  JinjaTemplate& operator=(JinjaTemplate&&) noexcept;
  ~JinjaTemplate();

  bool has_generation() const;
  /// The text for `variables`, an object whose strings are UTF-8. InputError naming the line for what is
  /// undefined, of the wrong type or not served, for raise_exception(), and for a template that takes more
  /// than 2 million steps, makes a text of more than 16 MiB or nests more than 200 calls deep.
  Rendered render(const nlohmann::ordered_json& variables) const;

 private:
  std::string name_;
  std::unique_ptr<const jinja::Tree> tree_;
};

}  // namespace mezzo
