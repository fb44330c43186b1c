#!/usr/bin/env python3
"""Renders the chat templates of tests/data/chat/templates with transformers, and marks the assistant's tokens.

    python tests/goldens/make_chat_vectors.py     # needs transformers and jinja2; versions go into the file

The templates are written for these tests, with the constructs of the families that they are named after. Writes
tests/data/chat/templates.json: for each template and conversation the text without and with the generation prompt (null:
the template refuses), and for the one with {% generation %} the ids and the mask under tokenizers of tests/data.
"""
import json
import pathlib

import jinja2
import transformers
from transformers.utils.chat_template_utils import render_jinja_template

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


CONVERSATIONS = [
    chat(("user", "Hi"), ("assistant", "Hello!")),
    chat(("system", "Be brief."), ("user", "What is 2 + 2?"), ("assistant", "4")),
    chat(("system", ""), ("user", "One"), ("assistant", "1"), ("user", "Two"), ("assistant", "2"), ("user", "Three"),
         ("assistant", "3")),
    chat(("user", "  blanks \n"), ("assistant", "\n\n around \t"), ("user", "\ttoo "), ("assistant", " ")),
    chat(("user", ""), ("assistant", "")),
    chat(("user", "Grüße, 世界 🙂"), ("assistant", "नमस्ते é — “ok”"), ("user", "<|im_end|> {{ x }} {% y %}"), ("assistant", "a\nb\n\nc")),
    chat(("user", "Think"), ("assistant", "<think>\nhm\n</think>\n\nFirst."), ("user", "Again"),
         ("assistant", "<think>\nhm hm\n</think>\n\nSecond.")),
    chat(("user", "Only a question")),
    chat(("user", "Twice"), ("user", "asked"), ("assistant", "Once"), ("assistant", "more")),
    chat(("assistant", "I begin."), ("user", "Do")),
]


def main():
    cases = []
    for path in sorted((DATA / "chat" / "templates").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for number, conversation in enumerate(CONVERSATIONS):
            texts = []
            for add in (False, True):
                try:
                    texts.append(render_jinja_template([conversation], chat_template=source, add_generation_prompt=add, **TOKENS)[0][0])
                except jinja2.exceptions.TemplateError:
                    texts.append(None)
            cases.append({"template": path.name, "conversation": number, "texts": texts})

    source = (DATA / "chat" / "templates" / "chatml_generation.jinja").read_text(encoding="utf-8")
    masks = []
    for name in ("tokenizers/qwen2", "tokenizers/llama3", "pipelines/llama", "pipelines/llama_metaspace", "pipelines/mistral",
                 "pipelines/gemma", "pipelines/phi3", "pipelines/qwen", "pipelines/neox", "pipelines/deepseek"):
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(DATA / (name + ".json")))
        for number, conversation in enumerate(CONVERSATIONS):
            out = tokenizer.apply_chat_template(conversation, chat_template=source, return_dict=True, return_assistant_tokens_mask=True)
            masks.append({"tokenizer": name, "conversation": number, "ids": out["input_ids"], "mask": "".join(map(str, out["assistant_masks"]))})

    document = {"jinja2": jinja2.__version__, "transformers": transformers.__version__, "tokens": TOKENS,
                "conversations": CONVERSATIONS, "cases": cases, "masks": masks}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).replace('{"template"', '\n{"template"').replace('{"tokenizer"', '\n{"tokenizer"')
    (DATA / "chat" / "templates.json").write_text(text + "\n", encoding="utf-8")
    print(len(cases), "texts,", len(masks), "masks")


if __name__ == "__main__":
    main()
