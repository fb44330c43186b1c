// The bar on a terminal, as a terminal shows it.
#include "mezzo/train/reporter.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

namespace mezzo {
namespace {

/// What of a terminal is needed to see its lines: characters of one column, \r, \n, and ESC [ K.
class Screen {
 public:
  explicit Screen(std::size_t columns) : columns_(columns) {}

  void show(const std::string& bytes) {
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      if (bytes[i] == '\r') {
        column_ = 0;
      } else if (bytes[i] == '\n') {
        lines_.emplace_back();
      } else if (bytes.compare(i, 3, "\x1b[K") == 0) {
        lines_.back().resize(column_);
        i += 2;
      } else if ((static_cast<unsigned char>(bytes[i]) & 0xC0u) != 0x80u) {  // one column a character
        if (column_ == columns_) {
          ++wraps_;
          lines_.emplace_back();
          column_ = 0;
        }
        lines_.back().resize(std::max(lines_.back().size(), column_ + 1), ' ');
        lines_.back()[column_++] = bytes[i];
      }
    }
  }

  int wraps() const { return wraps_; }
  const std::vector<std::string>& lines() const { return lines_; }

 private:
  std::size_t columns_;
  std::size_t column_ = 0;
  std::vector<std::string> lines_ = {""};
  int wraps_ = 0;
};

class TerminalTest : public ::testing::TestWithParam<unsigned short> {
 protected:
  void SetUp() override {
    winsize window{.ws_row = 24, .ws_col = GetParam(), .ws_xpixel = 0, .ws_ypixel = 0};
    if (::openpty(&controller_, &terminal_, nullptr, nullptr, &window) != 0)
      GTEST_SKIP() << "this machine has no pseudo terminals (/dev/pts)";
    stream_ = ::fdopen(terminal_, "w");
    ASSERT_NE(stream_, nullptr);
  }
  void TearDown() override {
    if (stream_ != nullptr) std::fclose(stream_);
    if (controller_ >= 0) ::close(controller_);
  }
  /// What was written since the last call. A terminal holds few thousand bytes: read it often.
  std::string written() {
    std::string text;
    pollfd readable{.fd = controller_, .events = POLLIN, .revents = 0};
    while (::poll(&readable, 1, 20) == 1) {
      std::array<char, 4096> buffer;
      const ssize_t got = ::read(controller_, buffer.data(), buffer.size());
      if (got <= 0) break;
      text.append(buffer.data(), static_cast<std::size_t>(got));
    }
    return text;
  }

  int controller_ = -1;
  int terminal_ = -1;
  std::FILE* stream_ = nullptr;
};

StepMetrics metrics_of(std::uint64_t step) {
  return {.step = step,
          .epoch = 1.5,
          .loss = 0.6931,
          .projected_gradient_norm = 12.34,
          .learning_rate = 0.003,
          .tokens_per_second = 59679,
          .seconds = static_cast<double>(step)};
}

TEST_P(TerminalTest, TheBarNeverWrapsAndScrollsNothing) {
  constexpr std::uint64_t steps = 20;
  Screen screen(GetParam());
  {
    Logger log({.stream = stream_});
    Reporter reporter(log, 0, steps);
    for (std::uint64_t step = 1; step <= steps; ++step) {
      reporter.step(metrics_of(step), false);
      if (step % 5 == 0) log.info("after {}", step);
      screen.show(written());
      ASSERT_EQ(screen.lines().size(), step / 5 + 1) << "a bar is a line of its own";
      EXPECT_TRUE(screen.lines().back().find(fmt::format("step {}/20", step)) != std::string::npos)
          << screen.lines().back();
    }
    reporter.end_bar();
    screen.show(written());
  }
  EXPECT_EQ(screen.wraps(), 0);
  EXPECT_EQ(screen.lines(), (std::vector<std::string>{"after 5", "after 10", "after 15", "after 20", ""}));
}

TEST_P(TerminalTest, LinesThatStayFitInto80Columns) {
  Screen screen(80);
  Logger log({.stream = stream_});
  Reporter reporter(log, 0, 1000);
  reporter.step(metrics_of(999), true);
  reporter.end_bar();
  screen.show(written());
  EXPECT_EQ(screen.lines().front(),
            "step 999/1000  epoch 1.50  loss 0.6931  |g| 12.3  lr 0.003  59679 tokens/s");
  EXPECT_EQ(screen.wraps(), 0);
}

TEST_P(TerminalTest, WideCharactersAreNotCutAndDoNotWrap) {
  Logger log({.stream = stream_});
  std::string wide;
  for (int i = 0; i < 100; ++i) wide += "語";
  log.status(wide);
  const std::string drawn = written();
  ASSERT_EQ(drawn.size() % 3, 0u) << "whole characters of three bytes";
  EXPECT_LT(drawn.size() / 3 * 2, GetParam());
  EXPECT_GE(drawn.size() / 3 * 2 + 2, GetParam() - 1u);
}

TEST_P(TerminalTest, AWindowThatShrinksIsSeenAtTheNextLine) {
  Logger log({.stream = stream_});
  log.status(std::string(200, 'x'));
  EXPECT_EQ(written(), std::string(GetParam() - 1u, 'x'));
  const winsize window{.ws_row = 24, .ws_col = 10, .ws_xpixel = 0, .ws_ypixel = 0};
  ASSERT_EQ(::ioctl(controller_, TIOCSWINSZ, &window), 0);
  log.info("line");
  EXPECT_EQ(written(), "\r\x1b[Kline\r\n" + std::string(9, 'x'));
}

INSTANTIATE_TEST_SUITE_P(Widths, TerminalTest, ::testing::Values(80, 40, 20));

TEST(ProgressBar, ShowsWhatFits) {
  const std::vector<std::string> fields = {"step 1/2", "loss 0.5", "0:01 left", "9 tokens/s"};
  EXPECT_EQ(progress_bar(0.5, fields, 80),
            "[============            ] step 1/2  loss 0.5  0:01 left  9 tokens/s");
  EXPECT_EQ(progress_bar(0.5, fields, 42), "[=====     ] step 1/2  loss 0.5  0:01 left");
  EXPECT_EQ(progress_bar(1.0, fields, 29), "[========] step 1/2  loss 0.5");
  EXPECT_EQ(progress_bar(0.0, fields, 20), "step 1/2  loss 0.5");
  EXPECT_EQ(progress_bar(0.0, fields, 9), "step 1/2");
}

}  // namespace
}  // namespace mezzo
