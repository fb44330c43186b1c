// docs/cookbook.md is run as it stands: its files are written, its commands succeed.
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <sstream>

#include "program.h"

namespace mezzo::test {
namespace {

/// A fenced block: ```kind name.
struct Block {
  std::string kind;
  std::string name;
  std::string text;
};

std::vector<Block> blocks_of(const std::string& page) {
  std::vector<Block> blocks;
  std::istringstream lines(read_all(page));
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("```")) {
      inside = !inside;
      if (!inside) continue;
      std::istringstream head(line.substr(3));
      head >> blocks.emplace_back().kind >> blocks.back().name;
    } else if (inside) {
      blocks.back().text += line + '\n';
    }
  }
  return blocks;
}

/// This process and its children have one processor: what runs is too small for more threads.
void take_one_processor() {
  cpu_set_t all;
  ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    return;
  }
}

TEST(Cookbook, RunsAsItStands) {
  take_one_processor();
  const ScratchFolder scratch;
  std::filesystem::create_directories(scratch / "models");
  std::filesystem::copy(MEZZO_SOURCE_DIR "/configs/quickstart/llama2m", scratch / "models/my-model");
  write_file(scratch / "models/my-model/chat_template.jinja",
             "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
             "{% if add_generation_prompt %}assistant: {% endif %}");
  const std::vector<Block> blocks = blocks_of(MEZZO_SOURCE_DIR "/docs/cookbook.md");
  for (const Block& block : blocks) {
    if (!block.name.empty()) write_file(scratch / block.name, block.text);
  }
  int commands = 0;
  for (const Block& block : blocks) {
    if (block.kind != "sh") continue;
    std::istringstream lines(block.text);
    for (std::string line; std::getline(lines, line); ++commands) {
      ASSERT_TRUE(line.starts_with("mezzo ")) << line;
      const std::string log = scratch / "log";
      const std::string shell = fmt::format("cd {} && {}{} >{} 2>&1 </dev/null", scratch.path(),
                                            MEZZO_PROGRAM, line.substr(std::string("mezzo").size()), log);
      EXPECT_EQ(std::system(shell.c_str()), 0) << line << "\n" << read_all(log);
      EXPECT_EQ(read_all(log).find("mezzo: warning: data.train"), std::string::npos) << line << "\n"
                                                                                     << read_all(log);
    }
  }
  const auto configs = std::ranges::count(blocks, "yaml", &Block::kind);
  EXPECT_GE(commands, configs);
}

}  // namespace
}  // namespace mezzo::test
