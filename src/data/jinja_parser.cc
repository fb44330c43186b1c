#include "jinja_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

namespace mezzo::jinja {
namespace {

class Parser {
 public:
  Parser(std::vector<Token> tokens, const Vocabulary& vocabulary)
      : tokens_(std::move(tokens)), vocabulary_(vocabulary) {}

  Tree run() {
    Tree tree;
    tree.body = parse_block({});
    tree.has_generation = has_generation_;
    return tree;
  }

 private:
  using Kind = Token::Kind;

  // ---- tokens ----
  const Token& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(next_ + ahead, tokens_.size() - 1)];
  }
  Token take() {
    last_line_ = peek().line;
    return tokens_[next_ + 1 < tokens_.size() ? next_++ : next_];
  }
  bool is_op(std::string_view op, std::size_t ahead = 0) const {
    return peek(ahead).kind == Kind::op && peek(ahead).text == op;
  }
  bool is_word(std::string_view word, std::size_t ahead = 0) const {
    return peek(ahead).kind == Kind::name && peek(ahead).text == word;
  }
  bool skip_op(std::string_view op) {
    if (!is_op(op)) return false;
    take();
    return true;
  }
  bool skip_word(std::string_view word) {
    if (!is_word(word)) return false;
    take();
    return true;
  }
  [[noreturn]] void fail(std::string message) const { throw SourceProblem{peek().line, std::move(message)}; }
  std::string found() const {
    const Token& token = peek();
    switch (token.kind) {
      case Kind::data:
        return "text";
      case Kind::variable_begin:
        return "{{";
      case Kind::variable_end:
        return "}}";
      case Kind::block_begin:
        return "{%";
      case Kind::block_end:
        return "%}";
      case Kind::text:
        return "a text";
      case Kind::whole:
      case Kind::number:
        return "a number";
      case Kind::end:
        return "the end of the template";
      default:
        return token.text;
    }
  }
  void expect_op(std::string_view op) {
    if (!skip_op(op)) fail(fmt::format("found {}, expected {}", found(), op));
  }
  void expect(Kind kind, std::string_view what) {
    if (peek().kind != kind) fail(fmt::format("found {}, expected {}", found(), what));
    take();
  }
  std::string expect_name(std::string_view what) {
    if (peek().kind != Kind::name) fail(fmt::format("found {}, expected {}", found(), what));
    return take().text;
  }

  /// Counts nesting while it lives.
  class Level {
   public:
    explicit Level(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > max_depth) parser_.fail(fmt::format("nested deeper than {} levels", max_depth));
    }
    ~Level() { --parser_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Parser& parser_;
  };

  template <typename Node>
  static ExpressionPtr make(std::size_t line, Node node) {
    auto expression = std::make_unique<Expression>();
    expression->node = std::move(node);
    expression->line = line;
    return expression;
  }

  // ---- statements ----
  /// Statements up to a tag with one of `ends`, which is taken up to its name; with none, to the end.
  Block parse_block(std::initializer_list<std::string_view> ends) {
    const Level level(*this);
    const std::size_t begin = last_line_;
    Block block;
    for (;;) {
      const std::size_t line = peek().line;
      const auto add = [&](auto node) { block.push_back({.node = std::move(node), .line = line}); };
      links_ = 0;
      switch (peek().kind) {
        case Kind::data:
          add(Output{take().text});
          break;
        case Kind::variable_begin: {
          take();
          ExpressionPtr expression = parse_tuple(true);
          if (const auto* filter = std::get_if<Filter>(&expression->node); filter && filter->name == "safe")
            --safes_;
          check_safes();
          expect(Kind::variable_end, "}}");
          add(Print{std::move(expression)});
          break;
        }
        case Kind::end:
          if (ends.size() > 0)
            throw SourceProblem{begin, fmt::format("the block has no end, {}", *(ends.end() - 1))};
          return block;
        default: {
          take();  // {%
          if (peek().kind != Kind::name) fail(fmt::format("found {}, expected a statement", found()));
          if (std::ranges::find(ends, peek().text) != ends.end()) return block;
          parse_statement(block, line);
        }
      }
    }
  }

  void end_tag() {
    check_safes();
    expect(Kind::block_end, "%}");
  }
  /// In Jinja a text that is safe escapes what is put together with it.
  void check_safes() const {
    if (safes_ > 0) fail("the filter safe is served as the last one in {{ }} alone");
  }
  Block parse_body(std::initializer_list<std::string_view> ends) {
    end_tag();
    return parse_block(ends);
  }

  void parse_statement(Block& block, std::size_t line) {
    const std::string word = take().text;
    const auto add = [&](auto node) { block.push_back({.node = std::move(node), .line = line}); };
    if (word == "if") {
      add(parse_if());
    } else if (word == "for") {
      add(parse_for());
    } else if (word == "set") {
      parse_set(block, line);
    } else if (word == "macro") {
      add(parse_macro());
    } else if (word == "generation") {
      has_generation_ = true;
      const Scope scope(*this, /*is_loop=*/false);
      Generation node{parse_body({"endgeneration"})};
      take();
      end_tag();
      add(std::move(node));
    } else if (word == "break" || word == "continue") {
      if (loops_ == 0) fail(word + " outside of a for");
      end_tag();
      if (word == "break") add(Break{});
      else add(Continue{});
    } else {
      constexpr std::string_view ends[] = {"elif",   "else",     "endif",        "endfor",
                                           "endset", "endmacro", "endgeneration"};
      if (std::ranges::find(ends, word) != std::end(ends))
        fail(fmt::format("{} without its beginning", word));
      fail(fmt::format("the statement {} is not served", word));
    }
  }

  /// A part of the template with variables of its own.
  class Scope {
   public:
    Scope(Parser& parser, bool is_loop) : parser_(parser), loops_(parser.loops_) {
      ++parser_.scopes_;
      parser_.loops_ = is_loop ? loops_ + 1 : 0;
    }
    ~Scope() {
      --parser_.scopes_;
      parser_.loops_ = loops_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Parser& parser_;
    int loops_;
  };

  If parse_if() {
    If node;
    for (;;) {
      ExpressionPtr test = parse_tuple(false);
      node.branches.emplace_back(std::move(test), parse_body({"elif", "else", "endif"}));
      const std::string end = take().text;
      if (end == "elif") continue;
      if (end == "else") {
        node.otherwise = parse_body({"endif"});
        take();
      }
      end_tag();
      return node;
    }
  }

  For parse_for() {
    For node;
    node.target = parse_target();
    if (!skip_word("in")) fail(fmt::format("found {}, expected in", found()));
    node.iterable = parse_tuple(false);
    if (skip_word("if")) node.filter = parse_expression();
    if (is_word("recursive")) fail("a recursive for is not served");
    {
      const Scope scope(*this, /*is_loop=*/true);
      node.body = parse_body({"else", "endfor"});
    }
    if (take().text == "else") {
      const Scope scope(*this, /*is_loop=*/false);
      node.otherwise = parse_body({"endfor"});
      take();
    }
    end_tag();
    return node;
  }

  Target parse_target() {
    Target target;
    const bool in_parentheses = skip_op("(");
    for (;;) {
      const std::string name = expect_name("a variable");
      constexpr std::string_view reserved[] = {"true", "false", "none", "True", "False", "None", "loop"};
      if (std::ranges::find(reserved, name) != std::end(reserved))
        fail(fmt::format("a variable named {}", name));
      target.names.push_back(name);
      if (!skip_op(",")) break;
      target.unpacks = true;
      if (peek().kind != Kind::name || is_word("in")) break;
    }
    if (in_parentheses) expect_op(")");
    return target;
  }

  void parse_set(Block& block, std::size_t line) {
    Set node;
    node.target = parse_target();
    if (!node.target.unpacks && skip_op(".")) node.attribute = expect_name("an attribute");
    if (skip_op("=")) {
      node.value = parse_tuple(true);
      end_tag();
      block.push_back({.node = std::move(node), .line = line});
      return;
    }
    if (node.target.unpacks || !node.attribute.empty()) fail(fmt::format("found {}, expected =", found()));
    SetBlock whole{.name = node.target.names[0], .filters = {}, .body = {}};
    while (is_op("|")) whole.filters.push_back(parse_filter(nullptr));
    const Scope scope(*this, /*is_loop=*/false);
    whole.body = parse_body({"endset"});
    take();
    end_tag();
    block.push_back({.node = std::move(whole), .line = line});
  }

  Macro parse_macro() {
    if (scopes_ > 0) fail("a macro within a for, a block or another macro is not served");
    Macro node;
    node.name = expect_name("a name");
    expect_op("(");
    while (!is_op(")")) {
      std::string parameter = expect_name("a parameter");
      ExpressionPtr otherwise;
      if (skip_op("=")) otherwise = parse_expression();
      else if (!node.parameters.empty() && node.parameters.back().second)
        fail("a parameter without a default behind one with one");
      node.parameters.emplace_back(std::move(parameter), std::move(otherwise));
      if (!skip_op(",")) break;
    }
    expect_op(")");
    const Scope scope(*this, /*is_loop=*/false);
    node.body = parse_body({"endmacro"});
    take();
    end_tag();
    return node;
  }

  // ---- expressions, from the loosest binding to the tightest ----
  /// One expression, or several with commas as a tuple.
  ExpressionPtr parse_tuple(bool with_conditional) {
    const std::size_t line = peek().line;
    const auto one = [&] { return with_conditional ? parse_expression() : parse_or(); };
    ExpressionPtr first = one();
    if (is_op(",")) {
      Items items{.is_tuple = true, .items = {}};
      items.items.push_back(std::move(first));
      while (skip_op(",")) {
        if (ends_expression()) break;
        items.items.push_back(one());
      }
      first = make(line, std::move(items));
    }
    return first;
  }

  bool ends_expression() const {
    return peek().kind == Kind::variable_end || peek().kind == Kind::block_end || peek().kind == Kind::end ||
           is_op(")");
  }

  ExpressionPtr parse_expression() {
    const Level level(*this);
    ExpressionPtr result = parse_or();
    while (is_word("if")) {
      const std::size_t line = take().line;
      ExpressionPtr test = parse_or();
      ExpressionPtr otherwise;
      if (skip_word("else")) otherwise = parse_expression();
      result = nested(make(line, Conditional{std::move(test), std::move(result), std::move(otherwise)}));
    }
    return result;
  }

  /// For what loops build around a node: the tree gets deeper without a call.
  ExpressionPtr nested(ExpressionPtr expression) {
    if (++links_ > max_links) fail(fmt::format("more than {} operators in one expression", max_links));
    return expression;
  }

  ExpressionPtr parse_logic(bool is_and) {
    const std::size_t line = peek().line;
    const std::string_view word = is_and ? "and" : "or";
    const auto operand = [&] { return is_and ? parse_not() : parse_logic(true); };
    ExpressionPtr first = operand();
    if (!is_word(word)) return first;
    Logic logic{.is_and = is_and, .operands = {}};
    logic.operands.push_back(std::move(first));
    while (skip_word(word)) logic.operands.push_back(operand());
    return make(line, std::move(logic));
  }
  ExpressionPtr parse_or() { return parse_logic(false); }

  ExpressionPtr parse_not() {
    if (!is_word("not")) return parse_comparison();
    const Level level(*this);
    const std::size_t line = take().line;
    return make(line, Not{parse_not()});
  }

  ExpressionPtr parse_comparison() {
    const std::size_t line = peek().line;
    Comparison comparison{.first = parse_sum(), .rest = {}};
    for (;;) {
      std::string op;
      for (const std::string_view candidate : {"==", "!=", "<", "<=", ">", ">="}) {
        if (is_op(candidate)) op = candidate;
      }
      if (!op.empty()) {
        take();
      } else if (skip_word("in")) {
        op = "in";
      } else if (is_word("not") && is_word("in", 1)) {
        take();
        take();
        op = "not in";
      } else {
        break;
      }
      comparison.rest.emplace_back(op, parse_sum());
    }
    if (comparison.rest.empty()) return std::move(comparison.first);
    return make(line, std::move(comparison));
  }

  template <typename Operand>
  ExpressionPtr parse_chain(std::initializer_list<std::string_view> ops, Operand&& operand) {
    const std::size_t line = peek().line;
    Chain chain{.first = operand(), .rest = {}};
    while (peek().kind == Kind::op && std::ranges::find(ops, peek().text) != ops.end()) {
      std::string op = take().text;
      chain.rest.emplace_back(std::move(op), operand());
    }
    if (chain.rest.empty()) return std::move(chain.first);
    return make(line, std::move(chain));
  }

  ExpressionPtr parse_sum() {
    return parse_chain({"+", "-"}, [&] { return parse_joined(); });
  }

  ExpressionPtr parse_joined() {
    const std::size_t line = peek().line;
    Joined joined;
    do {
      joined.parts.push_back(parse_chain({"*", "/", "//", "%"}, [&] { return parse_unary(true); }));
    } while (skip_op("~"));
    if (joined.parts.size() == 1) return std::move(joined.parts[0]);
    return make(line, std::move(joined));
  }

  ExpressionPtr parse_unary(bool with_filter) {
    const Level level(*this);
    const std::size_t line = peek().line;
    ExpressionPtr result;
    if (is_op("-") || is_op("+")) {
      const bool negative = take().text == "-";
      result = make(line, Sign{negative, parse_unary(false)});
    } else {
      result = parse_primary();
    }
    result = parse_postfix(std::move(result));
    if (with_filter) result = parse_filters(std::move(result));
    if (is_op("**")) fail("the operator ** is not served");
    return result;
  }

  ExpressionPtr parse_primary() {
    const Token token = peek();
    switch (token.kind) {
      case Kind::name:
        take();
        if (token.text == "true" || token.text == "True") return make(token.line, Constant{true});
        if (token.text == "false" || token.text == "False") return make(token.line, Constant{false});
        if (token.text == "none" || token.text == "None") return make(token.line, Constant{Value()});
        return make(token.line, Name{token.text});
      case Kind::text: {
        std::string text;
        while (peek().kind == Kind::text) text += take().text;
        return make(token.line, Constant{Value(std::move(text))});
      }
      case Kind::whole:
        take();
        return make(token.line, Constant{token.whole});
      case Kind::number:
        take();
        return make(token.line, Constant{token.number});
      default:
        break;
    }
    if (skip_op("(")) {
      if (skip_op(")")) return make(token.line, Items{.is_tuple = true, .items = {}});
      ExpressionPtr inner = parse_tuple(true);
      expect_op(")");
      return inner;
    }
    if (skip_op("[")) {
      Items items{.is_tuple = false, .items = {}};
      while (!is_op("]")) {
        items.items.push_back(parse_expression());
        if (!skip_op(",")) break;
      }
      expect_op("]");
      return make(token.line, std::move(items));
    }
    if (skip_op("{")) {
      Entries entries;
      while (!is_op("}")) {
        ExpressionPtr key = parse_expression();
        expect_op(":");
        entries.entries.emplace_back(std::move(key), parse_expression());
        if (!skip_op(",")) break;
      }
      expect_op("}");
      return make(token.line, std::move(entries));
    }
    fail(fmt::format("found {}, expected an expression", found()));
  }

  ExpressionPtr parse_postfix(ExpressionPtr object) {
    for (;;) {
      const std::size_t line = peek().line;
      if (skip_op(".")) {
        if (peek().kind == Kind::whole) {
          const Token index = take();
          object = nested(make(line, Subscript{std::move(object), make(line, Constant{index.whole})}));
          continue;
        }
        const std::string name = expect_name("an attribute");
        refuse_loop_attribute(*object, name);
        object = nested(make(line, Attribute{std::move(object), name}));
      } else if (skip_op("[")) {
        object = nested(parse_subscript(std::move(object), line));
      } else if (is_op("(")) {
        object = nested(make(line, Call{std::move(object), parse_arguments()}));
      } else {
        return object;
      }
    }
  }

  void refuse_loop_attribute(const Expression& object, const std::string& name) const {
    const auto* variable = std::get_if<Name>(&object.node);
    if (variable == nullptr || variable->name != "loop") return;
    for (const std::string_view known : {"cycle", "changed", "depth", "depth0", "iterable"}) {
      if (name == known) fail(fmt::format("loop.{} is not served", name));
    }
  }

  ExpressionPtr parse_subscript(ExpressionPtr object, std::size_t line) {
    ExpressionPtr bounds[3];
    std::size_t count = 0;
    for (; count < 3; ++count) {
      if (!is_op(":") && !is_op("]")) bounds[count] = parse_expression();
      if (!skip_op(":")) break;
    }
    if (!is_op("]")) fail(fmt::format("found {}, expected ]", found()));
    take();
    if (count > 0) {
      return make(line,
                  Slice{std::move(object), std::move(bounds[0]), std::move(bounds[1]), std::move(bounds[2])});
    }
    if (!bounds[0]) fail("a subscript without an index");
    return make(line, Subscript{std::move(object), std::move(bounds[0])});
  }

  Arguments parse_arguments() {
    Arguments arguments;
    expect_op("(");
    while (!is_op(")")) {
      if (is_op("*") || is_op("**")) fail("arguments by * or ** are not served");
      if (peek().kind == Kind::name && is_op("=", 1)) {
        std::string name = take().text;
        take();
        arguments.named.emplace_back(std::move(name), parse_expression());
      } else {
        if (!arguments.named.empty()) fail("an argument without a name behind one with a name");
        arguments.positional.push_back(parse_expression());
      }
      if (!skip_op(",")) break;
    }
    expect_op(")");
    return arguments;
  }

  Filter parse_filter(ExpressionPtr object) {
    expect_op("|");
    Filter filter{.object = std::move(object), .name = expect_name("a filter"), .arguments = {}};
    if (std::ranges::find(vocabulary_.filters, filter.name) == vocabulary_.filters.end())
      fail(fmt::format("the filter {} is not served", filter.name));
    if (is_op("(")) filter.arguments = parse_arguments();
    if (filter.name == "safe") ++safes_;
    return filter;
  }

  ExpressionPtr parse_filters(ExpressionPtr object) {
    for (;;) {
      const std::size_t line = peek().line;
      if (is_op("|")) {
        object = nested(make(line, parse_filter(std::move(object))));
      } else if (skip_word("is")) {
        object = nested(make(line, parse_test(std::move(object))));
      } else if (is_op("(")) {
        object = nested(make(line, Call{std::move(object), parse_arguments()}));
      } else {
        return object;
      }
    }
  }

  Test parse_test(ExpressionPtr object) {
    Test test{.object = std::move(object), .name = {}, .arguments = {}, .negated = skip_word("not")};
    test.name = expect_name("a test");
    if (std::ranges::find(vocabulary_.tests, test.name) == vocabulary_.tests.end())
      fail(fmt::format("the test {} is not served", test.name));
    if (is_op("(")) {
      test.arguments = parse_arguments();
      return test;
    }
    const Kind kind = peek().kind;
    const bool is_argument = kind == Kind::text || kind == Kind::whole || kind == Kind::number ||
                             is_op("[") || is_op("{") ||
                             (kind == Kind::name && !is_word("else") && !is_word("or") && !is_word("and"));
    if (is_argument) {
      if (is_word("is")) fail("two tests in a row are not served; put parentheses around the first");
      test.arguments.positional.push_back(parse_postfix(parse_primary()));
    }
    return test;
  }

  static constexpr int max_links = 100;

  std::vector<Token> tokens_;
  const Vocabulary& vocabulary_;
  std::size_t next_ = 0;
  std::size_t last_line_ = 1;  ///< of the token that was taken last
  int depth_ = 0;
  int links_ = 0;  ///< of the statement that is read
  int scopes_ = 0;
  int loops_ = 0;
  int safes_ = 0;  ///< filters of that name in the tag that is read
  bool has_generation_ = false;
};

}  // namespace

Tree parse(std::vector<Token> tokens, const Vocabulary& vocabulary) {
  return Parser(std::move(tokens), vocabulary).run();
}

}  // namespace mezzo::jinja
