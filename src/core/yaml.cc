#include "mezzo/core/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <array>
#include <istream>
#include <streambuf>
#include <unordered_map>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"

namespace mezzo::yaml {
namespace {

// A stream over a text that is not copied.
class TextBuffer : public std::streambuf {
 public:
  explicit TextBuffer(std::string_view text) {
    char* begin = const_cast<char*>(text.data());  // a get area is never written to
    setg(begin, begin, begin + text.size());
  }
};

constexpr const char* alias_refused = "uses an alias (*name); a config may not use anchors and aliases";

// Builds the tree from yaml-cpp's events; its own document model would hide repeated keys, aliases and
// quotes.
class Builder : public YAML::EventHandler {
 public:
  Builder(std::string_view text, Place start, bool number_lines)
      : text_(text), start_(std::move(start)), number_lines_(number_lines) {}

  Node take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ == 0) return;
    // yaml-cpp also starts a "document" with whatever follows the end of the first one's root.
    if (line_text(mark.line).starts_with("---")) {
      fail(mark, "starts a second document; expected one document");
    }
    fail(mark,
         "has text after the end of the document's value; quote a text that starts with a quote, {{ or [");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    add(scalar_node(Node::Kind::null, mark, ""), mark);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { fail(mark, alias_refused); }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    // yaml-cpp's tag of a plain scalar without a tag is "?", of a quoted one "!".
    if (tag != "?" && tag != "!") refuse_tag(mark, tag);
    add(scalar_node(tag == "?" ? Node::Kind::plain : Node::Kind::quoted, mark, value), mark);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(Node::Kind::list, mark, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(Node::Kind::map, mark, tag, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  // A map or list that is still open.
  struct Frame {
    Node node;
    std::unordered_map<std::string, int> lines;  // of a map's keys so far
  };

  template <typename... Args>
  [[noreturn]] void fail(const YAML::Mark& mark, fmt::format_string<Args...> format, Args&&... args) const {
    throw UsageError("{}: {}", place(mark).text(), fmt::format(format, std::forward<Args>(args)...));
  }

  Place place(const YAML::Mark& mark) const { return {start_.source, number_lines_ ? mark.line + 1 : 0}; }

  std::string_view line_text(int line) const {
    std::string_view rest = text_;
    for (; line > 0; --line) rest.remove_prefix(std::min(rest.size(), rest.find('\n')) + 1);
    return rest;
  }

  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
    if (anchor != 0) fail(mark, "uses an anchor (&name); a config may not use anchors and aliases");
  }

  void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (tag.empty() || tag == "?") return;
    fail(mark, "uses the tag '{}'; a config may not use tags", printable(tag));
  }

  Node scalar_node(Node::Kind kind, const YAML::Mark& mark, const std::string& value) const {
    Node node;
    node.kind = kind;
    node.text = value;
    node.place = place(mark);
    return node;
  }

  // Whether the next node is the key of the map that is open.
  bool key_comes() const {
    if (open_.empty()) return false;
    const Node& node = open_.back().node;
    return node.kind == Node::Kind::map && node.keys.size() == node.items.size();
  }

  // The dotted name of the map that is open, as a reader of the config would call it.
  std::string section() const {
    std::string name;
    for (std::size_t i = 0; i + 1 < open_.size(); ++i) {
      const Node& node = open_[i].node;
      if (node.kind != Node::Kind::map) continue;
      if (!name.empty()) name += '.';
      name += node.keys.back().text;
    }
    return name.empty() ? "at the top level" : fmt::format("in the section '{}'", printable(name));
  }

  void open(Node::Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (key_comes())
      fail(mark, "has a map or a list as a key {}, or a {{ or [ that is not closed", section());
    // Checked here, and not on the finished tree, because yaml-cpp recurses as deep as the text nests.
    if (open_.size() == max_depth) fail(mark, "nests maps and lists more than {} deep", max_depth);
    Frame frame;
    frame.node.kind = kind;
    frame.node.place = place(mark);
    open_.push_back(std::move(frame));
  }

  void close() {
    Node node = std::move(open_.back().node);
    open_.pop_back();
    attach(std::move(node));
  }

  void add(Node node, const YAML::Mark& mark) {
    if (key_comes()) {
      add_key(std::move(node), mark);
    } else {
      attach(std::move(node));
    }
  }

  void add_key(Node key, const YAML::Mark& mark) {
    if (key.kind == Node::Kind::null) {
      fail(mark, "has an empty key or null as a key {}; quote it if that word is meant", section());
    }
    if (key.kind == Node::Kind::plain && key.text == "<<") {
      fail(mark, "uses a merge key (<<) {}; a config may not merge maps", section());
    }
    Frame& frame = open_.back();
    const auto [first, is_new] = frame.lines.emplace(key.text, key.place.line);
    if (!is_new) {
      const std::string where = number_lines_ ? fmt::format(" (first on line {})", first->second) : "";
      fail(mark, "repeats the key '{}' {}{}", printable(key.text), section(), where);
    }
    frame.node.keys.push_back(std::move(key));
  }

  void attach(Node node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Node& parent = open_.back().node;
    // yaml-cpp's mark of a value that is left out is that of whatever comes next.
    if (parent.kind == Node::Kind::map && node.kind == Node::Kind::null)
      node.place = parent.keys.back().place;
    parent.items.push_back(std::move(node));
  }

  std::string_view text_;
  Place start_;
  bool number_lines_;
  int documents_ = 0;
  std::vector<Frame> open_;
  Node root_;
};

// What yaml-cpp would take in silence: it replaces what is not UTF-8 and guesses at UTF-16 from NULs.
void check_characters(std::string_view text, const Place& start, bool number_lines) {
  Place place = start;
  place.line = number_lines ? 1 : 0;
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0) throw UsageError("{}: byte {} is not UTF-8 (0x{:02x})", place.text(), i, byte);
    if ((byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7f) {
      throw UsageError("{}: byte {} is the control character 0x{:02x}; expected text", place.text(), i, byte);
    }
    if (byte == '\n' && number_lines) ++place.line;
    i += length;
  }
}

bool is_plain_safe(std::string_view text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (text.empty() || !(letter(text[0]) || text[0] == '/' || text[0] == '_')) return false;
  const bool simple = std::all_of(text.begin(), text.end(), [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '/' || c == '_' || c == '-' || c == '.';
  });
  if (!simple) return false;
  // Words that some version of YAML reads as null or a truth value.
  const std::string lower = ascii_lower(text);
  constexpr std::array<std::string_view, 9> words = {"null", "true", "false", "yes", "no",
                                                     "on",   "off",  "y",     "n"};
  return std::find(words.begin(), words.end(), lower) == words.end();
}

}  // namespace

std::string Place::text() const {
  const std::string name = source ? *source : std::string();
  return line > 0 ? fmt::format("{}:{}", name, line) : name;
}

Node* Node::find(std::string_view key) {
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (keys[i].text == key) return &items[i];
  }
  return nullptr;
}

void Node::set(std::string key, Node value) {
  if (Node* old = find(key)) {
    *old = std::move(value);
    return;
  }
  Node key_node;
  key_node.kind = Kind::plain;
  key_node.text = std::move(key);
  key_node.place = value.place;
  keys.push_back(std::move(key_node));
  items.push_back(std::move(value));
}

Node parse(std::string_view text, const std::string& source, bool number_lines) {
  const Place start{std::make_shared<const std::string>(source), 0};
  if (text.size() > max_bytes) {
    throw UsageError("{}: has {} bytes; expected at most {}", start.text(), text.size(), max_bytes);
  }
  check_characters(text, start, number_lines);

  Builder builder(text, start, number_lines);
  TextBuffer buffer(text);
  std::istream stream(&buffer);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {  // a foreign type: translated here, with what this layer knows
    const Place place{start.source, number_lines && !error.mark.is_null() ? error.mark.line + 1 : 0};
    if (error.msg.starts_with(YAML::ErrorMsg::UNKNOWN_ANCHOR)) {
      throw UsageError("{}: {}", place.text(), alias_refused);
    }
    throw UsageError(
        "{}: is not valid YAML ({}); a text that starts with {{, [, a quote or * or holds ': ' or ' #' has "
        "to be quoted",
        place.text(), error.msg);
  }
  Node root = builder.take();
  if (!root.place.source) root.place = {start.source, 0};
  return root;
}

std::string scalar(std::string_view text) {
  if (is_plain_safe(text)) return std::string(text);
  std::string quoted = "\"";
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const std::size_t length = std::max<std::size_t>(utf8_length(text.substr(i)), 1);
    const std::string_view character = text.substr(i, length);
    if (byte == '"' || byte == '\\') {
      quoted += '\\';
      quoted += text[i];
    } else if (byte == '\n') {
      quoted += "\\n";
    } else if (byte == '\t') {
      quoted += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      quoted += fmt::format("\\x{:02x}", byte);
    } else if (character == "\u0085") {  // line breaks and the byte-order mark, to some readers
      quoted += "\\x85";
    } else if (character == "\u2028") {
      quoted += "\\u2028";
    } else if (character == "\u2029") {
      quoted += "\\u2029";
    } else if (character == "\ufeff") {
      quoted += "\\ufeff";
    } else {
      quoted += character;
    }
    i += length;
  }
  return quoted + "\"";
}

std::string printable(std::string_view text) {
  constexpr std::size_t longest = 80;
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    if (out.size() >= longest) return out + "...";
    const auto byte = static_cast<unsigned char>(text[i]);
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0 || byte < 0x20 || byte == 0x7f) {
      out += byte == '\n' ? "\\n" : byte == '\t' ? "\\t" : fmt::format("\\x{:02x}", byte);
    } else {
      out += text.substr(i, length);
    }
    i += std::max<std::size_t>(length, 1);
  }
  return out;
}

}  // namespace mezzo::yaml
