#include "mezzo/core/log.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

namespace mezzo {
namespace {

// A temporary file to log to.
class Capture {
 public:
  Capture() : file_(std::tmpfile()) {}
  ~Capture() { std::fclose(file_); }
  std::FILE* stream() { return file_; }
  std::string text() {
    std::fflush(file_);
    std::rewind(file_);
    std::string all;
    std::array<char, 4096> buffer;
    while (const std::size_t got = std::fread(buffer.data(), 1, buffer.size(), file_))
      all.append(buffer.data(), got);
    return all;
  }

 private:
  std::FILE* file_;
};

TEST(Log, Formats) {
  Capture capture;
  Logger log({.stream = capture.stream()});
  log.debug("not shown");
  log.info("step {} of {}", 1, 2);
  log.warning("loss is {}", "high");
  log.error("a.yaml:1: wrong");
  EXPECT_EQ(capture.text(), "step 1 of 2\nmezzo: warning: loss is high\nmezzo: error: a.yaml:1: wrong\n");
}

TEST(Log, Levels) {
  Capture capture;
  Logger log({.level = LogLevel::warning, .stream = capture.stream()});
  log.info("no");
  log.warning("yes");
  Logger chatty({.level = LogLevel::debug, .stream = capture.stream()});
  chatty.debug("details");
  EXPECT_EQ(capture.text(), "mezzo: warning: yes\ndetails\n");
}

TEST(Log, OtherRanksWriteWhatTheyAloneKnow) {
  Capture capture;
  Logger log({.rank = 3, .host = "node7", .stream = capture.stream()});
  EXPECT_EQ(log.rank(), 3);
  log.info("no");
  log.warning("no");
  log.status("no");
  log.rank_warning("the disk is full");
  log.error("rank 3 on node7: gone");
  EXPECT_EQ(capture.text(),
            "mezzo: warning: rank 3 on node7: the disk is full\nmezzo: error: rank 3 on node7: gone\n");
}

TEST(Log, WarnsOnceOfTheSame) {
  Capture capture;
  Logger log({.stream = capture.stream()});
  for (int i = 0; i < 4; ++i) log.warning("about {}", i / 2);
  log.info("again");
  log.info("again");
  EXPECT_EQ(capture.text(), "mezzo: warning: about 0\nmezzo: warning: about 1\nagain\nagain\n");
}

TEST(Log, AMessageIsOneLine) {
  Capture capture;
  Logger log({.stream = capture.stream()});
  log.error("file 'a\nmezzo: error: b\x1b[2J\r'");
  EXPECT_EQ(capture.text(), "mezzo: error: file 'a\\nmezzo: error: b\\x1b[2J\\x0d'\n");
}

TEST(Log, NoStatusWithoutATerminal) {
  Capture capture;
  {
    Logger log({.stream = capture.stream()});
    EXPECT_EQ(log.status_columns(), 0u);
    log.status("50%");
    log.info("line");
  }
  EXPECT_EQ(capture.text(), "line\n");
}

TEST(Log, StatusStaysBelowMessagesOnATerminal) {
  int controller = -1;
  int terminal = -1;
  if (::openpty(&controller, &terminal, nullptr, nullptr, nullptr) != 0)
    GTEST_SKIP() << "this machine has no pseudo terminals (/dev/pts)";
  std::FILE* stream = ::fdopen(terminal, "w");
  ASSERT_NE(stream, nullptr);
  {
    Logger log({.stream = stream});
    EXPECT_EQ(log.status_columns(), 79u);  // a window of unknown width
    log.status("50%");
    log.info("line");
  }
  const std::string expected = "50%\r\x1b[Kline\r\n50%\r\x1b[K";
  // The kernel hands a terminal's bytes on in its own time and pieces.
  std::string text;
  pollfd readable{.fd = controller, .events = POLLIN, .revents = 0};
  while (text.size() < expected.size() && ::poll(&readable, 1, 10'000) == 1) {
    std::array<char, 256> buffer;
    const ssize_t got = ::read(controller, buffer.data(), buffer.size());
    ASSERT_GT(got, 0);
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  EXPECT_EQ(text, expected);
  std::fclose(stream);
  ::close(controller);
}

TEST(Log, ThreadsDoNotMixLines) {
  Capture capture;
  {
    Logger log({.stream = capture.stream()});
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&log] {
        for (int i = 0; i < 100; ++i) log.info("a whole line");
      });
    }
  }
  std::string expected;
  for (int i = 0; i < 400; ++i) expected += "a whole line\n";
  EXPECT_EQ(capture.text(), expected);
}

}  // namespace
}  // namespace mezzo
