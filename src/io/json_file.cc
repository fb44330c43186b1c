#include "mezzo/io/json_file.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/io/files.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;

/// Walks the text for the parser and leaves in `*read` how far it has come: the parser's callbacks know no
/// place.
struct Cursor {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at;
  const char** read;

  reference operator*() const { return *at; }
  Cursor& operator++() {
    *read = ++at;
    return *this;
  }
  bool operator==(const Cursor& other) const { return at == other.at; }
};

/// Builds the tree from the parser's events (nlohmann's SAX interface), checking what its own builder does
/// not.
class TreeBuilder {
 public:
  TreeBuilder(std::string_view text, const std::string& path, std::size_t first_line)
      : text_(text), path_(path), first_line_(first_line), read_(text.data()) {}

  Json build() {
    // The parser takes a NUL for the end of the text and would leave unread what stands behind it.
    if (const std::size_t nul = text_.find('\0'); nul != text_.npos) {
      read_ = text_.data() + nul + 1;
      fail("invalid JSON: a NUL byte");
    }
    const Cursor begin{text_.data(), &read_}, end{text_.data() + text_.size(), &read_};
    Json::sax_parse(begin, end, this);  // every failure throws in parse_error(), key() or open()
    return std::move(root_);
  }

  bool null() { return add(nullptr) != nullptr; }
  bool boolean(bool value) { return add(value) != nullptr; }
  bool number_integer(Json::number_integer_t value) { return add(value) != nullptr; }
  bool number_unsigned(Json::number_unsigned_t value) { return add(value) != nullptr; }
  bool number_float(Json::number_float_t value, const std::string&) { return add(value) != nullptr; }
  bool string(std::string& value) { return add(std::move(value)) != nullptr; }
  bool binary(Json::binary_t&) { return false; }  // stands in no text
  bool start_object(std::size_t) { return open(Json::object()); }
  bool end_object() { return close(); }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    auto& members = open_.back()->get_ref<Json::object_t&>();
    const auto [member, is_new] = members.emplace(std::move(name), nullptr);
    if (!is_new) fail("the key {} stands twice in one object", quote(member->first));
    member_ = &member->second;
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const Json::exception& error) {
    // "[json.exception.NAME.ID] parse error at line L, column C: WHAT; last read: 'TEXT'": only WHAT is
    // wanted; the place is counted from first_line_, and TEXT may be long and anything.
    std::string_view what = error.what();
    what.remove_prefix(std::min(what.find("] ") + 2, what.size()));
    if (what.starts_with("parse error")) what.remove_prefix(std::min(what.find(": ") + 2, what.size()));
    what = what.substr(0, std::min(what.find("; last read: "), std::size_t{200}));
    fail("invalid JSON: {}", what);
  }

 private:
  Json* add(Json value) {
    if (open_.empty()) return &(root_ = std::move(value));
    if (open_.back()->is_array()) return &open_.back()->emplace_back(std::move(value));
    return &(*member_ = std::move(value));
  }

  bool open(Json value) {
    if (open_.size() == max_json_depth) fail("more than {} levels of nesting", max_json_depth);
    open_.push_back(add(std::move(value)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  template <typename... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    // The place of the last character that was read; before any was, the first.
    const auto at = static_cast<std::size_t>(std::max(read_ - text_.data(), std::ptrdiff_t{1})) - 1;
    const std::string_view before = text_.substr(0, at);
    const auto line = first_line_ + static_cast<std::size_t>(std::count(before.begin(), before.end(), '\n'));
    const std::size_t column = at - (before.rfind('\n') + 1) + 1;  // npos + 1 = 0: the first line
    throw InputError("{}:{}:{}: {}", path_, line, column, fmt::format(format, std::forward<Args>(args)...));
  }

  std::string_view text_;
  const std::string& path_;
  std::size_t first_line_;
  const char* read_;  ///< just behind the last character that the parser took
  Json root_;
  std::vector<Json*> open_;  ///< the objects and arrays around the current place, outermost first
  Json* member_ = nullptr;   ///< the value of the key read last, in open_.back()
};

}  // namespace

nlohmann::json parse_json(std::string_view text, const std::string& path, std::size_t first_line) {
  return TreeBuilder(text, path, first_line).build();
}

nlohmann::json read_json_file(const std::string& path, std::uint64_t max_bytes) {
  return parse_json(read_file(path, max_bytes), path);
}

std::string quote(std::string_view text) {
  constexpr std::size_t limit = 100;
  const bool cut = text.size() > limit;
  return fmt::format("{:?}{}", text.substr(0, limit), cut ? "..." : "");
}

}  // namespace mezzo
