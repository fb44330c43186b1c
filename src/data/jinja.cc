#include "mezzo/data/jinja.h"

#include <algorithm>
#include <deque>
#include <nlohmann/json.hpp>
#include <utility>

#include "jinja_lexer.h"
#include "jinja_library.h"
#include "jinja_parser.h"
#include "jinja_value.h"
#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"

namespace mezzo {
namespace jinja {
namespace {

/// The variables of a part of the template; those around it are seen, and stay as they are.
struct Scope {
  const Scope* parent = nullptr;
  std::vector<std::pair<std::string, Value>> variables;

  void set(const std::string& name, Value value) {
    const auto known = std::ranges::find(variables, name, [](const auto& entry) { return entry.first; });
    if (known != variables.end()) known->second = std::move(value);
    else variables.emplace_back(name, std::move(value));
  }
  const Value* find(const std::string& name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->parent) {
      for (const auto& [known, value] : scope->variables) {
        if (known == name) return &value;
      }
    }
    return nullptr;
  }
};

enum class Flow { goes_on, breaks, continues };

/// One rendering of a template.
class Renderer {
 public:
  JinjaTemplate::Rendered run(const Tree& tree, const nlohmann::ordered_json& variables) {
    for (auto item = variables.begin(); item != variables.end(); ++item)
      root_.set(item.key(), value_of(item.value()));
    run(tree.body, root_);
    return {std::move(text_), std::move(generations_)};
  }
  /// Where the rendering is.
  std::size_t line() const { return line_; }

 private:
  /// Counts nesting while it lives.
  class Level {
   public:
    explicit Level(int& depth) : depth_(depth) {
      if (++depth_ > 200) {
        --depth_;
        throw Problem("the template nests more than 200 calls deep");
      }
    }
    ~Level() { --depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    int& depth_;
  };

  // ---- statements ----
  Flow run(const Block& block, Scope& scope) {
    for (const Statement& statement : block) {
      line_ = statement.line;
      budget_.charge(1);
      const Level level(depth_);
      const Flow flow = std::visit([&](const auto& node) { return run(node, scope); }, statement.node);
      if (flow != Flow::goes_on) return flow;
    }
    return Flow::goes_on;
  }

  void write(std::string_view text) {
    budget_.charge_text(out_->size() + text.size() > Budget::text_bytes ? Budget::text_bytes + 1
                                                                        : text.size());
    *out_ += text;
  }
  /// What a block writes, as a text.
  template <typename Body>
  std::string captured(Body&& body) {
    std::string text;
    std::string* const outer = std::exchange(out_, &text);
    body();
    out_ = outer;
    return text;
  }

  Flow run(const Output& node, Scope&) {
    write(node.text);
    return Flow::goes_on;
  }
  Flow run(const Print& node, Scope& scope) {
    write(text_of(evaluate(*node.expression, scope), budget_));
    return Flow::goes_on;
  }
  Flow run(const If& node, Scope& scope) {
    for (const auto& [test, body] : node.branches) {
      if (is_true(evaluate(*test, scope))) return run(body, scope);
    }
    return run(node.otherwise, scope);
  }
  Flow run(const Break&, Scope&) { return Flow::breaks; }
  Flow run(const Continue&, Scope&) { return Flow::continues; }

  void assign(const Target& target, Value value, Scope& scope) {
    if (!target.unpacks) return scope.set(target.names[0], std::move(value));
    std::vector<Value> elements = elements_of(value, budget_);
    if (elements.size() != target.names.size())
      throw Problem(fmt::format("{} values for {} variables", elements.size(), target.names.size()));
    for (std::size_t i = 0; i < elements.size(); ++i) scope.set(target.names[i], std::move(elements[i]));
  }

  Flow run(const Set& node, Scope& scope) {
    Value value = evaluate(*node.value, scope);
    if (node.attribute.empty()) {
      assign(node.target, std::move(value), scope);
      return Flow::goes_on;
    }
    const Value* object = scope.find(node.target.names[0]);
    if (object == nullptr || !object->is<Namespace*>())
      throw Problem(
          fmt::format("{} is no namespace, whose attributes alone can be set", node.target.names[0]));
    Namespace& space = *std::get<Namespace*>(object->data());
    if (space.is_loop) throw Problem("an attribute of loop cannot be set");
    put(space, node.attribute, std::move(value));
    return Flow::goes_on;
  }

  static void put(Namespace& space, const std::string& name, Value value) {
    if (name.starts_with("_")) not_served("an attribute that begins with _ in a namespace");
    if (Value* known = space.find(name)) *known = std::move(value);
    else space.attributes.emplace_back(name, std::move(value));
  }

  Flow run(const SetBlock& node, Scope& scope) {
    Value value = captured([&] {
      Scope inner{.parent = &scope, .variables = {}};
      run(node.body, inner);
    });
    for (const Filter& filter : node.filters)
      value = apply_filter(filter.name, value, values_of(filter.arguments, scope), budget_);
    scope.set(node.name, std::move(value));
    return Flow::goes_on;
  }

  Flow run(const Macro& node, Scope& scope) {
    scope.set(node.name, &node);
    return Flow::goes_on;
  }

  Flow run(const Generation& node, Scope& scope) {
    if (out_ != &text_ || in_generation_)
      not_served("generation within a macro, a set block or another generation");
    in_generation_ = true;
    const std::size_t begin = text_.size();
    Scope inner{.parent = &scope, .variables = {}};
    run(node.body, inner);
    generations_.push_back({begin, text_.size()});
    in_generation_ = false;
    return Flow::goes_on;
  }

  Flow run(const For& node, Scope& scope) {
    std::vector<Value> elements = elements_of(evaluate(*node.iterable, scope), budget_);
    if (node.filter) {
      std::vector<Value> kept;
      for (Value& element : elements) {
        Scope inner{.parent = &scope, .variables = {}};
        assign(node.target, element, inner);
        if (is_true(evaluate(*node.filter, inner))) kept.push_back(std::move(element));
      }
      elements = std::move(kept);
    }
    if (elements.empty()) {
      Scope inner{.parent = &scope, .variables = {}};
      return run(node.otherwise, inner);
    }
    Namespace& loop = namespaces_.emplace_back();
    loop.is_loop = true;
    loop.elements = std::move(elements);
    for (; loop.at < loop.elements.size(); ++loop.at) {
      Scope inner{.parent = &scope, .variables = {}};
      inner.set("loop", &loop);
      assign(node.target, loop.elements[loop.at], inner);
      if (run(node.body, inner) == Flow::breaks) break;
    }
    loop.elements = {};  // an attribute of the loop is undefined from here on
    return Flow::goes_on;
  }

  // ---- expressions ----
  Value evaluate(const Expression& expression, const Scope& scope) {
    const Level level(depth_);
    budget_.charge(1);
    line_ = expression.line;
    return std::visit([&](const auto& node) { return evaluate(node, scope); }, expression.node);
  }
  Value evaluate_or(const ExpressionPtr& expression, const Scope& scope, Value otherwise) {
    return expression ? evaluate(*expression, scope) : std::move(otherwise);
  }

  Value evaluate(const Constant& node, const Scope&) { return node.value; }
  Value evaluate(const Name& node, const Scope& scope) {
    if (const Value* found = scope.find(node.name)) return *found;
    if (is_function(node.name)) return Function{node.name};
    return Undefined{node.name};
  }
  Value evaluate(const Items& node, const Scope& scope) {
    Sequence list{.kind = node.is_tuple ? Sequence::Kind::tuple : Sequence::Kind::list, .items = {}};
    for (const ExpressionPtr& item : node.items) list.items.push_back(evaluate(*item, scope));
    return list;
  }
  Value evaluate(const Entries& node, const Scope& scope) {
    Dict dict;
    for (const auto& [name, expression] : node.entries) {
      Value key = evaluate(*name, scope);
      if (!key.is_text() && !key.is_number() && !key.is<None>())
        throw Problem(fmt::format("a key of a dict is {}", type_name(key)));
      Value value = evaluate(*expression, scope);
      const auto known = std::ranges::find_if(
          dict.entries, [&](const auto& entry) { return equal(entry.first, key, budget_); });
      if (known != dict.entries.end()) known->second = std::move(value);
      else dict.entries.emplace_back(std::move(key), std::move(value));
    }
    return dict;
  }
  Value evaluate(const Chain& node, const Scope& scope) {
    Value value = evaluate(*node.first, scope);
    for (const auto& [op, operand] : node.rest)
      value = arithmetic(op, value, evaluate(*operand, scope), budget_);
    return value;
  }
  Value evaluate(const Joined& node, const Scope& scope) {
    std::string text;
    for (const ExpressionPtr& part : node.parts) {
      const std::string piece = text_of(evaluate(*part, scope), budget_);
      budget_.charge_text(text.size() + piece.size());
      text += piece;
    }
    return text;
  }
  Value evaluate(const Sign& node, const Scope& scope) {
    const Value value = evaluate(*node.operand, scope);
    if (!value.is_number()) throw Problem(fmt::format("a sign before {}", type_name(value)));
    return arithmetic(node.negative ? "-" : "+", std::int64_t{0}, value, budget_);
  }
  Value evaluate(const Not& node, const Scope& scope) { return !is_true(evaluate(*node.operand, scope)); }
  Value evaluate(const Logic& node, const Scope& scope) {
    Value value;
    for (const ExpressionPtr& operand : node.operands) {
      value = evaluate(*operand, scope);
      if (is_true(value) != node.is_and) break;
    }
    return value;
  }
  bool compare(const std::string& op, const Value& a, const Value& b) {
    if (op == "==") return equal(a, b, budget_);
    if (op == "!=") return !equal(a, b, budget_);
    if (op == "in") return contains(b, a, budget_);
    if (op == "not in") return !contains(b, a, budget_);
    if (op == "<") return less(a, b, budget_);
    if (op == ">") return less(b, a, budget_);
    return op == "<=" ? less(a, b, budget_) || equal(a, b, budget_)
                      : less(b, a, budget_) || equal(a, b, budget_);
  }
  Value evaluate(const Comparison& node, const Scope& scope) {
    Value left = evaluate(*node.first, scope);
    for (const auto& [op, operand] : node.rest) {
      Value right = evaluate(*operand, scope);
      if (!compare(op, left, right)) return false;
      left = std::move(right);
    }
    return true;
  }
  Value evaluate(const Conditional& node, const Scope& scope) {
    if (is_true(evaluate(*node.test, scope))) return evaluate(*node.then, scope);
    return evaluate_or(node.otherwise, scope, Undefined{"the other side of an if"});
  }
  Value evaluate(const Attribute& node, const Scope& scope) {
    return attribute_of(evaluate(*node.object, scope), node.name);
  }
  Value evaluate(const Subscript& node, const Scope& scope) {
    const Value object = evaluate(*node.object, scope);
    return element_of(object, evaluate(*node.index, scope), budget_);
  }
  Value evaluate(const Slice& node, const Scope& scope) {
    const Value object = evaluate(*node.object, scope);
    const Value start = evaluate_or(node.start, scope, {});
    const Value stop = evaluate_or(node.stop, scope, {});
    return slice_of(object, start, stop, evaluate_or(node.step, scope, {}), budget_);
  }
  Value evaluate(const Filter& node, const Scope& scope) {
    const Value object = evaluate(*node.object, scope);
    return apply_filter(node.name, object, values_of(node.arguments, scope), budget_);
  }
  Value evaluate(const Test& node, const Scope& scope) {
    const Value object = evaluate(*node.object, scope);
    return apply_test(node.name, object, values_of(node.arguments, scope), budget_) != node.negated;
  }

  CallValues values_of(const Arguments& arguments, const Scope& scope) {
    CallValues values;
    for (const ExpressionPtr& argument : arguments.positional)
      values.positional.push_back(evaluate(*argument, scope));
    for (const auto& [name, argument] : arguments.named)
      values.named.emplace_back(name, evaluate(*argument, scope));
    return values;
  }

  Value evaluate(const Call& node, const Scope& scope) {
    const Value callee = evaluate(*node.callee, scope);
    const CallValues arguments = values_of(node.arguments, scope);
    if (callee.is<const Macro*>()) return call(*std::get<const Macro*>(callee.data()), arguments);
    if (const auto* method = std::get_if<Method>(&callee.data()))
      return call_method(*method, arguments, budget_);
    if (const auto* function = std::get_if<Function>(&callee.data())) {
      if (function->name == "raise_exception") {
        arguments.check("raise_exception", {"message"});
        const Value* message = arguments.find(0, "message");
        throw Problem("the template refuses the conversation: " +
                      (message ? text_of(*message, budget_) : ""));
      }
      if (function->name != "namespace") return call_function(function->name, arguments, budget_);
      if (!arguments.positional.empty()) not_served("namespace() with arguments without names");
      Namespace& space = namespaces_.emplace_back();
      for (const auto& [name, value] : arguments.named) put(space, name, value);
      return &space;
    }
    if (const auto* undefined = std::get_if<Undefined>(&callee.data())) {
      if (undefined->name == "strftime_now")
        not_served("the function strftime_now, whose text is another one every day,");
      throw Problem(fmt::format("{} is undefined", undefined->name));
    }
    throw Problem(fmt::format("{} cannot be called", type_name(callee)));
  }

  Value call(const Macro& macro, const CallValues& arguments) {
    Scope scope{.parent = &root_, .variables = {}};
    if (arguments.positional.size() > macro.parameters.size())
      throw Problem(
          fmt::format("the macro {} takes {} arguments at most", macro.name, macro.parameters.size()));
    for (const auto& [name, value] : arguments.named) {
      const auto known = std::ranges::find(
          macro.parameters, name, [](const auto& entry) -> const std::string& { return entry.first; });
      if (known == macro.parameters.end())
        throw Problem(fmt::format("the macro {} has no parameter {}", macro.name, name));
      if (known - macro.parameters.begin() < static_cast<std::ptrdiff_t>(arguments.positional.size()))
        throw Problem(fmt::format("the macro {} gets {} twice", macro.name, name));
    }
    for (std::size_t i = 0; i < macro.parameters.size(); ++i) {
      const auto& [name, otherwise] = macro.parameters[i];
      const Value* given = arguments.find(i, name);
      scope.set(name, given != nullptr ? *given : evaluate_or(otherwise, scope, Undefined{name}));
    }
    return captured([&] { run(macro.body, scope); });
  }

  Budget budget_;
  Scope root_;
  std::deque<Namespace> namespaces_;  ///< all that were made; values point at them
  std::string text_;
  std::string* out_ = &text_;  ///< what statements write to
  std::vector<TextSpan> generations_;
  bool in_generation_ = false;
  std::size_t line_ = 1;
  int depth_ = 0;
};

}  // namespace
}  // namespace jinja

JinjaTemplate::JinjaTemplate(std::string_view source, std::string name) : name_(std::move(name)) {
  if (const auto bad = find_invalid_utf8(source))
    throw InputError("{}: the template is not valid UTF-8 at byte {}", name_, *bad);
  try {
    tree_ = std::make_unique<const jinja::Tree>(
        jinja::parse(jinja::tokens_of(source), jinja::library_vocabulary()));
  } catch (const jinja::SourceProblem& problem) {
    throw InputError("{}, line {}: {}", name_, problem.line, problem.message);
  }
}

JinjaTemplate::JinjaTemplate(JinjaTemplate&&) noexcept = default;
JinjaTemplate& JinjaTemplate::operator=(JinjaTemplate&&) noexcept = default;
JinjaTemplate::~JinjaTemplate() = default;

bool JinjaTemplate::has_generation() const { return tree_->has_generation; }

JinjaTemplate::Rendered JinjaTemplate::render(const nlohmann::ordered_json& variables) const {
  jinja::Renderer renderer;
  try {
    return renderer.run(*tree_, variables);
  } catch (const jinja::Problem& problem) {
    throw InputError("{}, line {}: {}", name_, renderer.line(), problem.what());
  }
}

}  // namespace mezzo
