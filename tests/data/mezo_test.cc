// configs/mezo: what the model sees of each task of the paper is what the paper's prompts say.
#include <gtest/gtest.h>

#include <map>

#include "mezzo/core/config.h"
#include "mezzo/data/task.h"

namespace mezzo {
namespace {

/// The examples of a task's small file: "prompt|option|option", the right option in brackets.
std::vector<std::string> texts_of(const std::string& name, const std::string& file) {
  const std::string root = MEZZO_SOURCE_DIR;
  const std::vector<std::string> here = {"model.path=/m"};  // which need not be there
  const Config config = load_config(root + "/configs/mezo/" + name + ".yaml", here, ConfigUse::train);
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(root + "/configs/quickstart/llama2m");
  const Task task(config.data.task, *tokenizer, 1000);
  RecordCounts counts;
  std::vector<std::string> texts;
  for (const Example& example : task.read(MEZZO_TEST_DATA "/mezo/" + file, DataFormat::automatic, &counts)) {
    const bool start = tokenizer->start_token().has_value();
    std::string text = tokenizer->decode(std::span(example.prompt).subspan(start ? 1 : 0));
    for (std::size_t o = 0; o < example.options.size(); ++o) {
      const std::string option = tokenizer->decode_continuation(example.options[o]);
      const bool right = static_cast<std::int32_t>(o) == example.label;
      text += right ? "[" + option + "]" : "|" + option;
    }
    for (std::size_t a = 1; a < example.answers.size(); ++a) text += " or" + example.answers[a];
    texts.push_back(text);
  }
  EXPECT_EQ(counts.overlong + counts.blank_at_border + counts.no_blank + counts.second_start, 0) << name;
  return texts;
}

using Texts = std::vector<std::string>;

TEST(MezoConfigs, Classification) {
  EXPECT_EQ(texts_of("sst2", "sst2.tsv"),
            (Texts{"a warm and quiet film It was| terrible[ great]",
                   "the joke is told twice It was[ terrible]| great",
                   "`` not a word too many '' , they say It was| terrible[ great]"}));
  EXPECT_EQ(
      texts_of("rte", "rte.jsonl"),
      (Texts{"The bridge was opened in May.\nDoes this mean that \"The bridge is open.\" is true? Yes or "
             "No?\n[Yes]|No",
             "Two boats left the harbour.\nDoes this mean that \"All boats stayed.\" is true? Yes or "
             "No?\n|Yes[No]"}));
  EXPECT_EQ(texts_of("cb", "cb.jsonl")[2],
            "Suppose If they win, there will be cake. Can we infer that \"they win\"? Yes, No, or "
            "Maybe?\n|Yes|No[Maybe]");
  EXPECT_EQ(texts_of("boolq", "boolq.jsonl"),
            (Texts{"Tower -- The tower is from 1300, the church from 1450. Is the tower older than the "
                   "church?\n[Yes]|No",
                   "Island -- It can be reached by boat alone. Can one walk to the island?\n|Yes[No]"}));
  EXPECT_EQ(
      texts_of("wsc", "wsc.jsonl")[0],
      "Ann told Mia that she had won.\nIn the previous sentence, does the pronoun \"she\" refer to Ann? "
      "Yes or No?\n[Yes]|No");
  EXPECT_EQ(
      texts_of("wic", "wic.jsonl")[1],
      "Does the word \"light\" have the same meaning in these two sentences? Yes, No?\nA light bag.\nTurn "
      "on the light.\n|Yes[No]");
  const Texts multirc = texts_of("multirc", "multirc.jsonl");
  ASSERT_EQ(multirc.size(), 5u);
  EXPECT_EQ(multirc[3],
            "Lena planted two trees. One was an apple tree, the other a pear tree.\nQuestion: How many were "
            "there?\nI found this answer \"Three\". Is that correct? Yes or No?\n|Yes[No]");
}

TEST(MezoConfigs, MultipleChoice) {
  EXPECT_EQ(texts_of("copa", "copa.jsonl"),
            (Texts{"The lamp went out because[ the bulb was old.]| the room was large.",
                   "I missed the train so| the train was red.[ I walked home.]"}));
  EXPECT_EQ(
      texts_of("record", "record.jsonl"),
      (Texts{"José met Clara in Porto.\n- The two had written letters for years\n-| They walked along the "
             "river of José| They walked along the river of Clara[ They walked along the river of Porto]",
             "A team from Oslo beat Turin on Sunday.\n- Oslo leads the league\n-[ Fans of Oslo sang all "
             "night]| Fans of Turin sang all night"}));
}

TEST(MezoConfigs, Completion) {
  EXPECT_EQ(
      texts_of("squad", "squad.json"),
      (Texts{"Title: Lighthouses\nContext: The lighthouse was built in 1822 by Ida Holm. It is 31 metres "
             "high.\nQuestion: When was the lighthouse built?\nAnswer:[ 1822<|endoftext|>] or in 1822",
             "Title: Lighthouses\nContext: The lighthouse was built in 1822 by Ida Holm. It is 31 metres "
             "high.\nQuestion: Who built it?\nAnswer:[ Ida Holm<|endoftext|>]",
             "Title: Bread\nContext: Rye bread keeps for a week.\nQuestion: How long does rye bread "
             "keep?\nAnswer:[ a week<|endoftext|>]"}));
  const Texts drop = texts_of("drop", "drop.json");
  ASSERT_EQ(drop.size(), 3u);
  EXPECT_EQ(drop[0],
            "Passage: The home team scored 3 goals in the first half and 2 in the second. Berg scored all of "
            "them. The game was played on 3 May 1990.\nQuestion: How many goals were scored?\nAnswer:[ "
            "5<|endoftext|>]");
  EXPECT_TRUE(drop[1].ends_with("Answer:[ Berg<|endoftext|>]")) << drop[1];
  EXPECT_TRUE(drop[2].ends_with("Answer:[ 3 May 1990<|endoftext|>]")) << drop[2];
}

}  // namespace
}  // namespace mezzo
