// A task of conversations, from the file to the step.
#include <gtest/gtest.h>

#include "program.h"

namespace mezzo::test {
namespace {

class ChatTest : public ::testing::Test {
 protected:
  ChatTest() {
    std::filesystem::copy(MEZZO_SOURCE_DIR "/configs/quickstart/llama2m", scratch_ / "model");
    write_file(scratch_ / "chat.yaml", fmt::format(R"(model: {{path: {0}/model}}
data:
  train: {0}/chat.jsonl
  task: {{type: chat}}
train: {{output_dir: {0}/run, max_steps: 2, batch_size: 2, eval_steps: 2}}
runtime: {{device: cpu, threads: 1}}
)",
                                                   scratch_.path()));
    write_file(
        scratch_ / "chat.jsonl",
        R"({"messages": [{"role": "user", "content": "good?"}, {"role": "assistant", "content": " yes"}]})"
        "\n"
        R"({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "a"}, )"
        R"({"from": "gpt", "value": " b"}, {"from": "human", "value": "c"}, {"from": "gpt", "value": " d"}]})"
        "\n");
  }
  void write_template() {
    write_file(scratch_ / "model/chat_template.jinja",
               "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}"
               "{% if add_generation_prompt %}assistant:{% endif %}");
  }
  Outcome mezzo(const std::string& verb, const std::string& more = "") {
    return run(scratch_, fmt::format("{} {} {}", verb, scratch_ / "chat.yaml", more));
  }
  void expect_error(const Outcome& outcome, const std::string& part) {
    EXPECT_NE(outcome.status, 0);
    ASSERT_EQ(outcome.errors().size(), 1u) << outcome.err;
    EXPECT_NE(outcome.errors()[0].find(part), std::string::npos) << outcome.errors()[0];
  }

  ScratchFolder scratch_;
};

TEST_F(ChatTest, TrainsOnTheAssistantsTurns) {
  write_template();
  const Outcome outcome =
      mezzo("train", "data.max_train_examples=1 data.validation=" + (scratch_ / "chat.jsonl"));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  // One start token, the template's; a loss line a turn of the assistant's.
  const bool first =
      outcome.err.find(R"(first example: "<|endoftext|>user:good?<|endoftext|>assistant: yes)") !=
      std::string::npos;
  EXPECT_TRUE(first || outcome.err.find(R"(first example: "<|endoftext|>system:s<)") != std::string::npos)
      << outcome.err;
  EXPECT_NE(outcome.err.find(first ? R"(the loss sees " yes<|endoftext|>": ids )"
                                   : R"(the loss sees " b<|endoftext|>": ids )"),
            std::string::npos)
      << outcome.err;
  EXPECT_TRUE(std::filesystem::exists(scratch_ / "run/adapter/adapter_model.safetensors"));
  EXPECT_EQ(mezzo("validate").status, 0);
  const Outcome eval = mezzo("eval", "data.validation=" + (scratch_ / "chat.jsonl") + " --json");
  ASSERT_EQ(eval.status, 0) << eval.err;
  EXPECT_EQ(nlohmann::json::parse(eval.out).at("examples"), 2);

  // Another template is another run.
  write_file(scratch_ / "model/chat_template.jinja",
             "{% for m in messages %}{{ m.role }} {{ m.content }}{{ eos_token }}{% endfor %}"
             "{% if add_generation_prompt %}assistant {% endif %}");
  expect_error(mezzo("train", "data.max_train_examples=1 train.max_steps=3 data.validation=" +
                                  (scratch_ / "chat.jsonl")),
               "tokenizer");
}

TEST_F(ChatTest, ErrorsSayWhatToDo) {
  expect_error(mezzo("train"),
               "has no chat template, which data.task.type: chat needs; expected chat_template.jinja");
  expect_error(run(scratch_, fmt::format("generate {} --chat --prompt Hi", scratch_ / "model")),
               "has no chat template");
  write_template();
  expect_error(mezzo("train", "data.task.template='x{a}'"), "is not used by a chat task");
  expect_error(mezzo("train", "data.task.loss=options"), "the one loss of a chat task");
  write_file(scratch_ / "chat.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n");
  expect_error(mezzo("train"), "chat.jsonl:1: the assistant says nothing in this conversation");
  write_file(scratch_ / "chat.jsonl", "{\"prompt\": \"a\"}\n");
  expect_error(mezzo("train"), "chat.jsonl:1: neither of the fields messages and conversations");
  write_file(scratch_ / "model/chat_template.jinja", "\n{% include 'x' %}");
  expect_error(mezzo("train"), "model/chat_template.jinja, line 2: the statement include is not served");
}

TEST_F(ChatTest, GeneratesAnAnswer) {
  write_template();
  const Outcome plain =
      run(scratch_, fmt::format("generate {} --max-new-tokens 4 --prompt 'user:Hi<|endoftext|>assistant:'",
                                scratch_ / "model"));
  const Outcome chat =
      run(scratch_, fmt::format("generate {} --max-new-tokens 4 --chat --prompt Hi", scratch_ / "model"));
  ASSERT_EQ(chat.status, 0) << chat.err;
  EXPECT_EQ(plain.out, "user:Hi<|endoftext|>assistant:" + chat.out);
}

}  // namespace
}  // namespace mezzo::test
