#include "jinja_library.h"

namespace mezzo::jinja {

const Vocabulary& library_vocabulary() {
  static const Vocabulary vocabulary{.filters = filter_names(), .tests = test_names()};
  return vocabulary;
}

bool is_function(std::string_view name) {
  return name == "range" || name == "dict" || name == "namespace" || name == "raise_exception";
}

Value call_function(std::string_view name, const CallValues& arguments, Budget& budget) {
  if (name == "dict") {
    if (!arguments.positional.empty()) not_served("dict() with arguments without names");
    Dict dict;
    for (const auto& [key, value] : arguments.named) dict.entries.emplace_back(Value(key), value);
    return dict;
  }
  arguments.check("range", {"", "", ""});
  if (!arguments.named.empty() || arguments.positional.empty())
    throw Problem("range: expected one to three whole numbers");
  std::vector<std::int64_t> bounds;
  for (const Value& value : arguments.positional) bounds.push_back(whole_argument("range", value));
  const std::int64_t start = bounds.size() > 1 ? bounds[0] : 0;
  const std::int64_t stop = bounds.size() > 1 ? bounds[1] : bounds[0];
  const std::int64_t step = bounds.size() > 2 ? bounds[2] : 1;
  if (step == 0) throw Problem("range: the step is 0");
  Sequence view{.kind = Sequence::Kind::view, .items = {}};
  for (std::int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (view.items.size() == 100'000)
      throw Problem("range: more than 100000 numbers");  // Jinja's sandbox too
    budget.charge(1);
    view.items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return view;
}

}  // namespace mezzo::jinja
