#pragma once
// The values of a template, and what Python's str(), repr(), json.dumps(), == and < make of them.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace mezzo::jinja {

/// What is wrong with a template or its values, without its place: the template adds that.
struct Problem : std::runtime_error {
  using std::runtime_error::runtime_error;
};
[[noreturn]] void not_served(std::string_view what);

/// What one rendering may do, so that no template hangs or fills the memory: every node that is evaluated is
/// a step, every element that is copied four, every 64 bytes of a text that is made one.
class Budget {
 public:
  static constexpr std::uint64_t steps = 2'000'000;
  static constexpr std::size_t text_bytes = std::size_t{16} << 20;  ///< of any one text
  /// Problem when it is used up; the others likewise.
  void charge(std::uint64_t count);
  void charge_elements(std::size_t count) { charge(4 * std::uint64_t{count}); }
  void charge_text(std::size_t bytes);

 private:
  std::uint64_t left_ = steps;
};

class Value;
struct Macro;      // jinja_parser.h
struct Namespace;  // below

struct Undefined {
  std::string name;  ///< for messages
};
struct None {};

/// A list and what behaves like one in a `for`.
struct Sequence {
  enum class Kind {
    list,
    tuple,
    view,       ///< range(), keys(), values(), items(): neither printed nor subscripted here
    generator,  ///< of filters such as map: true even when empty, without a length, read once
  };
  Kind kind = Kind::list;
  std::vector<Value> items;
  mutable std::size_t next = 0;  ///< generator: elements already read
  int depth = 1;                 ///< lists and dicts one within another; set by Value
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  ///< in the order in which they were written
  int depth = 1;                                 ///< as Sequence's
  const Value* find(const Value& key) const;
};

/// A method of a text or a dict that is not called yet.
struct Method {
  std::shared_ptr<const Value> self;
  std::string name;
};
/// A function that every template has.
struct Function {
  std::string name;
};

class Value {
 public:
  using Text = std::shared_ptr<const std::string>;
  using SequencePtr = std::shared_ptr<const Sequence>;
  using DictPtr = std::shared_ptr<const Dict>;
  using Data = std::variant<Undefined, None, bool, std::int64_t, double, Text, SequencePtr, DictPtr,
                            Namespace*, const Macro*, Method, Function>;

  Value() : data_(None{}) {}
  Value(Undefined v) : data_(std::move(v)) {}
  Value(bool v) : data_(v) {}
  Value(std::int64_t v) : data_(v) {}
  Value(double v) : data_(v) {}
  Value(std::string v) : data_(std::make_shared<const std::string>(std::move(v))) {}
  Value(const char* v) : Value(std::string(v)) {}
  Value(Sequence v);  ///< Problem for more than 100 levels
  Value(Dict v);      ///< likewise
  Value(Namespace* v) : data_(v) {}
  Value(const Macro* v) : data_(v) {}
  Value(Method v) : data_(std::move(v)) {}
  Value(Function v) : data_(std::move(v)) {}

  const Data& data() const { return data_; }
  template <typename T>
  bool is() const {
    return std::holds_alternative<T>(data_);
  }
  bool is_text() const { return is<Text>(); }
  bool is_undefined() const { return is<Undefined>(); }
  /// Whole numbers and booleans, which Python takes for whole numbers.
  bool is_whole() const { return is<std::int64_t>() || is<bool>(); }
  bool is_number() const { return is_whole() || is<double>(); }

  const std::string& text() const { return *std::get<Text>(data_); }  ///< is_text()
  std::int64_t whole() const;                                         ///< is_whole()
  double number() const;                                              ///< is_number()
  const Sequence* sequence() const;                                   ///< or null
  const Dict* dict() const;                                           ///< or null
  int depth() const;                                                  ///< 0 for what holds no values

 private:
  Data data_;
};

/// The object that namespace() gives, and `loop`.
struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
  bool is_loop = false;
  std::vector<Value> elements;  ///< that the loop goes over ...
  std::size_t at = 0;           ///< ... and where it is

  Value* find(std::string_view name);
  /// loop.NAME.
  Value loop_attribute(const std::string& name) const;
};

Value value_of(const nlohmann::ordered_json& json);

/// Python's name of the type, for messages.
std::string type_name(const Value& value);
bool is_true(const Value& value);
/// What printing it writes.
std::string text_of(const Value& value, Budget& budget);
bool equal(const Value& a, const Value& b, Budget& budget);
bool less(const Value& a, const Value& b, Budget& budget);
bool contains(const Value& container, const Value& item, Budget& budget);
/// The elements that `for` goes over; those of a text are its characters, those of a dict its keys.
std::vector<Value> elements_of(const Value& value, Budget& budget);
std::size_t length_of(const Value& value);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  int indent = -1;  ///< blanks a level; -1: all on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
/// json.dumps().
std::string json_of(const Value& value, const JsonStyle& style, Budget& budget);

/// The characters of a text.
std::vector<std::string_view> characters_of(std::string_view text);
/// Whether str.isspace() holds of the character that `text` begins with, and how many bytes that has.
bool starts_with_space(std::string_view text, std::size_t& size);

/// str.strip() and its halves; `set` null: white space.
std::string_view strip(std::string_view text, const std::string* set, bool left, bool right);

}  // namespace mezzo::jinja
