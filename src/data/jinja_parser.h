#pragma once
// The syntax tree of a template.
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "jinja_lexer.h"
#include "jinja_value.h"

namespace mezzo::jinja {

/// Expressions in expressions, statements in statements: more are refused, so that neither reading, nor
/// rendering, nor freeing a tree runs out of stack.
inline constexpr int max_depth = 100;

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Arguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
};

struct Constant {
  Value value;
};
struct Name {
  std::string name;
};
struct Items {
  bool is_tuple;
  std::vector<ExpressionPtr> items;
};
struct Entries {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
};
/// first op operand op operand ..., from the left: + - or * / // %.
struct Chain {
  ExpressionPtr first;
  std::vector<std::pair<std::string, ExpressionPtr>> rest;
};
/// a ~ b ~ ...
struct Joined {
  std::vector<ExpressionPtr> parts;
};
struct Sign {
  bool negative;
  ExpressionPtr operand;
};
struct Not {
  ExpressionPtr operand;
};
/// a and b and ..., or with `or`; gives the operand that decided.
struct Logic {
  bool is_and;
  std::vector<ExpressionPtr> operands;
};
/// a < b <= c ...; the operators also `in` and `not in`.
struct Comparison {
  ExpressionPtr first;
  std::vector<std::pair<std::string, ExpressionPtr>> rest;
};
struct Conditional {
  ExpressionPtr test;
  ExpressionPtr then;
  ExpressionPtr otherwise;  ///< null: undefined
};
struct Attribute {
  ExpressionPtr object;
  std::string name;
};
struct Subscript {
  ExpressionPtr object;
  ExpressionPtr index;
};
struct Slice {
  ExpressionPtr object;
  ExpressionPtr start, stop, step;  ///< null where not written
};
struct Call {
  ExpressionPtr callee;
  Arguments arguments;
};
struct Filter {
  ExpressionPtr object;  ///< null: the text of a block
  std::string name;
  Arguments arguments;
};
struct Test {
  ExpressionPtr object;
  std::string name;
  Arguments arguments;
  bool negated;
};

struct Expression {
  std::variant<Constant, Name, Items, Entries, Chain, Joined, Sign, Not, Logic, Comparison, Conditional,
               Attribute, Subscript, Slice, Call, Filter, Test>
      node;
  std::size_t line = 1;
};

struct Statement;
using Block = std::vector<Statement>;

/// Names that values are given to: one, or several for a list of as many.
struct Target {
  std::vector<std::string> names;
  bool unpacks = false;
};

struct Output {
  std::string text;
};
struct Print {
  ExpressionPtr expression;
};
struct If {
  std::vector<std::pair<ExpressionPtr, Block>> branches;
  Block otherwise;
};
struct For {
  Target target;
  ExpressionPtr iterable;
  ExpressionPtr filter;  ///< or null
  Block body;
  Block otherwise;
};
struct Set {
  Target target;
  std::string attribute;  ///< of the namespace that the target names; or empty
  ExpressionPtr value;
};
struct SetBlock {
  std::string name;
  std::vector<Filter> filters;
  Block body;
};
struct Macro {
  std::string name;
  std::vector<std::pair<std::string, ExpressionPtr>> parameters;  ///< with defaults, or null
  Block body;
};
/// What the assistant says: {% generation %} of transformers.
struct Generation {
  Block body;
};
struct Break {};
struct Continue {};

struct Statement {
  std::variant<Output, Print, If, For, Set, SetBlock, Macro, Generation, Break, Continue> node;
  std::size_t line = 1;
};

struct Tree {
  Block body;
  bool has_generation = false;
};

/// Names that are known: the parser refuses what the library does not have by its name, in whichever branch
/// of the template it stands.
struct Vocabulary {
  std::vector<std::string_view> filters;
  std::vector<std::string_view> tests;
};

/// Throws SourceProblem.
Tree parse(std::vector<Token> tokens, const Vocabulary& vocabulary);

}  // namespace mezzo::jinja
