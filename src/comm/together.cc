#include "mezzo/comm/together.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <exception>
#include <new>
#include <string_view>
#include <thread>

#include "error_line.h"
#include "launch.h"
#include "mezzo/core/yaml.h"
#include "words.h"

namespace mezzo {
namespace {

ExitCode code_of(const std::exception& error) {
  const auto* own = dynamic_cast<const Error*>(&error);
  return own != nullptr ? own->exit_code() : ExitCode::error;
}

/// A text's lines. A last one that is empty stands for the line's end before it.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  for (;;) {
    const std::size_t end = text.find('\n');
    lines.push_back(text.substr(0, end));
    if (end == text.npos) return lines;
    text.remove_prefix(end + 1);
  }
}

constexpr std::string_view blanks = " \t\r";

std::string_view trimmed(std::string_view line) {
  line.remove_prefix(std::min(line.find_first_not_of(blanks), line.size()));
  return line.substr(0, line.find_last_not_of(blanks) + 1);
}

std::string without_blanks(std::string_view line) {
  std::string text(line);
  std::erase_if(text, [](char c) { return blanks.find(c) != blanks.npos; });
  return text;
}

/// "found ..., expected ..." of the first lines in which two texts differ, which they do.
std::string difference(std::string_view found, std::string_view expected) {
  const std::vector<std::string_view> theirs = lines_of(found);
  const std::vector<std::string_view> ours = lines_of(expected);
  std::size_t i = 0;
  while (i < theirs.size() && i < ours.size() && theirs[i] == ours[i]) ++i;
  const std::string_view here = i < theirs.size() ? theirs[i] : "";
  const std::string_view there = i < ours.size() ? ours[i] : "";
  if (without_blanks(here) != without_blanks(there)) {
    const auto shown = [](std::string_view line) {
      const std::string_view text = trimmed(line);
      return text.empty() ? "nothing" : std::string(text);
    };
    return fmt::format("found {}, expected {}", shown(here), shown(there));
  }
  // In blanks alone: these have to be seen.
  const auto column = static_cast<std::size_t>(std::ranges::mismatch(here, there).in1 - here.begin());
  constexpr std::size_t before = 20;
  const std::size_t begin = column - std::min(column, before);
  const auto shown = [&](const std::vector<std::string_view>& lines) -> std::string {
    if (i >= lines.size()) return "nothing";
    return fmt::format("\"{}{}\"", begin > 0 ? "..." : "", yaml::printable(lines[i].substr(begin)));
  };
  return fmt::format("found {}, expected {} (line {}, column {})", shown(theirs), shown(ours), i + 1,
                     column + 1);
}

std::string text_of(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return "out of memory";
  return error.what();
}

}  // namespace

std::vector<std::string> agree(Exchange& exchange, const std::string& mine, Patience patience) {
  const auto size = static_cast<std::size_t>(exchange.size());
  const auto rank = static_cast<std::size_t>(exchange.rank());

  std::vector<std::uint64_t> bytes(size, 0);
  bytes[rank] = mine.size();
  require_complete(exchange, exchange.sum(bytes, patience));

  std::vector<std::size_t> begin(size + 1, 0);
  for (std::size_t r = 0; r < size; ++r) begin[r + 1] = begin[r] + words_of(bytes[r]);
  std::vector<std::uint64_t> words(begin[size], 0);
  put_text(mine, std::span(words).subspan(begin[rank]));
  require_complete(exchange, exchange.sum(words, patience));

  std::vector<std::string> texts(size);
  for (std::size_t r = 0; r < size; ++r) texts[r] = get_text(std::span(words).subspan(begin[r]), bytes[r]);
  return texts;
}

void check_same(Exchange& exchange, const std::string& what, const std::string& mine, Patience patience,
                ExitCode code) {
  const std::vector<std::string> all = agree(exchange, mine, patience);
  for (int rank = 1; rank < exchange.size(); ++rank) {
    const std::string& other = all[static_cast<std::size_t>(rank)];
    if (other == all[0]) continue;
    throw JobFailed(
        {.code = code,
         .message = fmt::format("{} of {} differs from that of {}: {}", what, exchange.name_of_rank(rank),
                                exchange.name_of_rank(0), difference(other, all[0]))});
  }
}

void check_together(Exchange& exchange, const std::optional<Failure>& mine, Patience patience) {
  // One byte of exit code before the message; nothing at all from a rank that is well.
  const std::string report = mine ? static_cast<char>(mine->code) + mine->message : std::string();
  const std::vector<std::string> reports = agree(exchange, report, patience);

  const auto failed = [](const std::string& r) { return !r.empty(); };
  const auto lowest = std::find_if(reports.begin(), reports.end(), failed);
  if (lowest == reports.end()) return;
  const int rank = static_cast<int>(lowest - reports.begin());
  const bool same =
      std::all_of(lowest, reports.end(), [&](const std::string& r) { return r.empty() || r == *lowest; });
  Failure failure{static_cast<ExitCode>(lowest->front()), lowest->substr(1)};
  if (rank != 0 || !same) failure.message = exchange.name_of_rank(rank) + ": " + failure.message;
  throw JobFailed(failure);
}

void together(Exchange& exchange, Patience patience, const std::function<void()>& step) {
  std::optional<Failure> mine;
  try {
    step();
  } catch (const JobFailed&) {
    throw;  // from a checkpoint inside the step: every rank has it
  } catch (const CommError&) {
    throw;
  } catch (const std::exception& error) {
    mine = Failure{code_of(error), text_of(error)};
  }
  check_together(exchange, mine, patience);
}

void require_complete(const Exchange& exchange, const ExchangeResult& result) {
  if (result.complete()) return;
  std::vector<std::string> names;
  for (const Absence& absence : result.absent) {
    std::string at(name_of(absence.phase));
    if (absence.step > 0) at += fmt::format(" of step {}", absence.step);
    names.push_back(
        fmt::format("{} {} for {:.1f} s (last seen in the {})", exchange.name_of_rank(absence.rank),
                    absence.alive ? "lives, but did not come" : "was not heard", absence.waited.count(), at));
  }
  throw RankLost("{}; what is on disk is whole: the same command goes on from there", fmt::join(names, ", "));
}

int report_failure(Exchange* exchange, const std::exception& error) {
  const ExitCode code = code_of(error);
  const std::string text = text_of(error);
  if (exchange == nullptr) {
    const std::optional<Launch> launch = launch_from_environment();
    if (!launch || launch->rank == 0) {
      write_error_line(text);
    } else {
      // The launcher ends the job at the first status other than 0: let rank 0 print before that.
      std::this_thread::sleep_for(std::chrono::seconds(1));
    }
  } else if (exchange->size() == 1) {
    write_error_line(text);
  } else if (dynamic_cast<const JobFailed*>(&error) != nullptr) {
    if (exchange->rank() == 0) write_error_line(text);
  } else if (dynamic_cast<const CommError*>(&error) != nullptr) {
    exchange->abort(code, text);  // speaks of other ranks by name already
  } else {
    exchange->abort(code, exchange->name_of_rank(exchange->rank()) + ": " + text);
  }
  return static_cast<int>(code);
}

}  // namespace mezzo
