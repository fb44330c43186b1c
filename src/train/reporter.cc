#include "mezzo/train/reporter.h"

#include <algorithm>

#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

std::string duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

Reporter::Reporter(Logger& log, std::uint64_t first_step, std::uint64_t max_steps)
    : log_(log), first_step_(first_step), max_steps_(max_steps) {}

void Reporter::table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      line += c + 1 == row.size() ? row[c] : fmt::format("{:<{}}  ", row[c], widths[c]);
    }
    log_.info("{}", line);
  }
}

void Reporter::first_example(const Task& task, const Tokenizer& tokenizer, const Example& example) {
  const auto& option = example.options[static_cast<std::size_t>(example.label)];
  log_.info("first example: {} -> {}", quote(tokenizer.decode(example.prompt)),
            quote(tokenizer.decode(option)));
  log_.info("  ids {} | the loss sees {}{}", fmt::join(example.prompt, " "), fmt::join(option, " "),
            task.loss() == TaskLoss::options
                ? fmt::format(" against the other {} options", example.options.size() - 1)
                : "");
}

void Reporter::step(const StepMetrics& metrics, bool log_line) {
  const double done = static_cast<double>(metrics.step - first_step_);
  const double left =
      done > 0 ? metrics.seconds / done * static_cast<double>(max_steps_ - metrics.step) : 0.0;
  const auto line = [&] {
    return fmt::format("step {}/{}  loss {:.4f}  |g| {:.3g}  lr {:.3g}  {:.0f} tokens/s  {} left",
                       metrics.step, max_steps_, metrics.loss, metrics.projected_gradient_norm,
                       metrics.learning_rate, metrics.tokens_per_second, duration(left));
  };
  if (log_.has_status()) {
    constexpr std::uint64_t width = 24;
    const std::uint64_t filled = max_steps_ == 0 ? width : width * metrics.step / max_steps_;
    log_.status(fmt::format("[{:<{}}] {}", std::string(filled, '='), width, line()));
  } else if (log_line) {
    log_.info("{}", line());
  }
}

void Reporter::evaluation(std::uint64_t step, const Evaluation& evaluation) {
  log_.info("step {}/{}  evaluation on {} examples: {}loss {:.4f}", step, max_steps_, evaluation.examples,
            evaluation.accuracy ? fmt::format("accuracy {:.4f}  ", *evaluation.accuracy) : "",
            evaluation.loss);
}

void Reporter::end_bar() { log_.status(""); }

}  // namespace mezzo
