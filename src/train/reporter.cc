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

std::string progress_bar(double part, const std::vector<std::string>& fields, std::size_t columns) {
  constexpr std::size_t narrowest = 8;
  constexpr std::size_t widest = 24;
  constexpr std::size_t frame = 3;  // [, ] and a blank
  constexpr std::size_t gap = 2;
  std::string text;
  for (const std::string& field : fields) {
    // The first two come before the bar, and the bar before the others.
    const bool needs_bar = &field - fields.data() >= 2;
    const std::size_t reserved = needs_bar ? narrowest + frame : 0;
    const std::size_t width = text.empty() ? field.size() : text.size() + gap + field.size();
    if (width + reserved > columns) break;
    text += (text.empty() ? "" : "  ") + field;
  }
  if (text.size() + frame + narrowest > columns) return text;
  const std::size_t width = std::min(widest, columns - text.size() - frame);
  const auto filled = static_cast<std::size_t>(part * static_cast<double>(width));
  return fmt::format("[{:<{}}] {}", std::string(filled, '='), width, text);
}

std::vector<std::string> aligned(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::vector<std::string> lines;
  for (const auto& row : rows) {
    std::string& line = lines.emplace_back();
    for (std::size_t c = 0; c < row.size(); ++c) {
      line += c + 1 == row.size() ? row[c] : fmt::format("{:<{}}  ", row[c], widths[c]);
    }
  }
  return lines;
}

Reporter::Reporter(Logger& log, std::uint64_t first_step, std::uint64_t max_steps)
    : log_(log), first_step_(first_step), max_steps_(max_steps) {}

void Reporter::table(const std::vector<std::vector<std::string>>& rows) {
  for (const std::string& line : aligned(rows)) log_.info("{}", line);
}

void Reporter::first_example(const Task& task, const Tokenizer& tokenizer, const Example& example) {
  if (task.generates()) {
    log_.info("first prompt: {}", quote(tokenizer.decode(example.prompt)));
    std::string right;
    for (const std::string& answer : example.answers) right += (right.empty() ? "" : ", ") + quote(answer);
    log_.info("  ids {}{}{}", fmt::join(example.prompt, " "),
              right.empty() ? "" : " | right answers: ", right);
    return;
  }
  const auto& option = example.options[static_cast<std::size_t>(example.label)];
  if (task.chat()) {
    std::vector<std::int32_t> ids = example.prompt;
    ids.insert(ids.end(), option.begin(), option.end());
    log_.info("first example: {}", quote(tokenizer.decode(ids)));
    for (const auto& [begin, end] : example.counted) {
      const std::span counted =
          std::span(option).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
      log_.info("  the loss sees {}: ids {}", quote(tokenizer.decode(counted)), fmt::join(counted, " "));
    }
    return;
  }
  log_.info("first example: {} -> {}", quote(tokenizer.decode(example.prompt)),
            quote(tokenizer.decode_continuation(option)));
  log_.info("  ids {} | the loss sees {}{}", fmt::join(example.prompt, " "), fmt::join(option, " "),
            reads_all_options(task.loss())
                ? fmt::format(" against the other {} options", example.options.size() - 1)
                : "");
}

void Reporter::step(const StepMetrics& metrics, bool log_line) {
  const double done = static_cast<double>(metrics.step - first_step_);
  const double left =
      done > 0 ? metrics.seconds / done * static_cast<double>(max_steps_ - metrics.step) : 0.0;
  const std::string where = fmt::format("step {}/{}", metrics.step, max_steps_);
  const std::string epoch = fmt::format("epoch {:.2f}", metrics.epoch);
  const std::string loss = metrics.rewards ? fmt::format("reward {:.4f}", metrics.rewards->mean)
                                           : fmt::format("loss {:.4f}", metrics.loss);
  const std::string gradient = fmt::format("|g| {:.3g}", metrics.projected_gradient_norm);
  const std::string rate = fmt::format("lr {:.3g}", metrics.learning_rate);
  const std::string speed = fmt::format("{:.0f} tokens/s", metrics.tokens_per_second);
  const std::string time = fmt::format("{} left", duration(left));
  const std::size_t columns = log_.status_columns();
  if (log_line) {  // the bar has the time that is left, and a line without it fits into 80 columns
    log_.info("{}  {}  {}  {}  {}  {}{}", where, epoch, loss, gradient, rate, speed,
              columns > 0 ? "" : "  " + time);
  }
  const double part =
      max_steps_ == 0 ? 1.0 : static_cast<double>(metrics.step) / static_cast<double>(max_steps_);
  if (columns > 0)
    log_.status(progress_bar(part, {where, loss, time, speed, gradient, rate, epoch}, columns));
}

void Reporter::evaluation(std::uint64_t step, double epoch, const Evaluation& evaluation,
                          std::int64_t samples) {
  log_.info("step {}/{}  epoch {:.2f}  evaluation on {} examples: {}{}", step, max_steps_, epoch,
            evaluation.examples,
            evaluation.accuracy ? fmt::format("accuracy {:.4f}  ", *evaluation.accuracy) : "",
            evaluation.reward ? fmt::format("reward {:.4f}", *evaluation.reward)
                              : fmt::format("loss {:.4f}", evaluation.loss));
  for (const GradedCompletion& one : first_of(evaluation.completions, samples)) {
    log_.info("  {} -> {}, reward {}", quote(one.prompt), quote(one.text),
              one.reward ? fmt::format("{:.4g}", *one.reward) : "none");
  }
}

void Reporter::end_bar() { log_.status(""); }

}  // namespace mezzo
