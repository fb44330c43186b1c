#!/usr/bin/env python3
"""Holds an exported adapter and a merged model against PEFT and transformers.

    peft_check.py MEZZO MODEL ADAPTER [MERGED]

Scores random prompts and completions with `mezzo score MODEL --adapter ADAPTER` and with PEFT on the same ids, and, where
MERGED is given, compares its logits in transformers with those of base + adapter. Needs torch, transformers, peft and
tokenizers. Exits with 1 when anything differs by more than 1e-4.
"""
import json
import random
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

LIMIT = 1e-4


def main():
    mezzo, model_dir, adapter_dir = sys.argv[1:4]
    merged_dir = sys.argv[4] if len(sys.argv) > 4 else None
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter_dir).eval()
    tokenizer = Tokenizer.from_file(model_dir + "/tokenizer.json")

    words = ["the", "film", "was", "a", "moving", "story", "dull", "and", "great", "terrible", "plot", ",", "."]
    rng = random.Random(1)
    records = [{"prompt": " ".join(rng.choices(words, k=rng.randint(0, 30))),
                "completion": " " + " ".join(rng.choices(words, k=rng.randint(1, 6)))} for _ in range(20)]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))
        file.flush()
        run = subprocess.run([mezzo, "score", model_dir, file.name, "--adapter", adapter_dir], check=True,
                             capture_output=True, text=True)
    scores = [json.loads(line)["logprobs"] for line in run.stdout.splitlines()]

    worst = moved = 0.0
    start = tokenizer.encode("", add_special_tokens=True).ids
    with torch.inference_mode():
        for record, mine in zip(records, scores, strict=True):
            prompt = start + tokenizer.encode(record["prompt"], add_special_tokens=False).ids
            completion = tokenizer.encode(record["completion"], add_special_tokens=False).ids
            def score():
                logits = model(input_ids=torch.tensor([prompt + completion])).logits[0]
                log_probabilities = logits.log_softmax(-1)[len(prompt) - 1:-1]
                return log_probabilities[torch.arange(len(completion)), torch.tensor(completion)]

            theirs = score()
            with model.disable_adapter():
                moved = max(moved, (theirs - score()).abs().max().item())
            worst = max(worst, (theirs - torch.tensor(mine)).abs().max().item())
    print(f"log-probabilities of {len(records)} records: largest difference to PEFT {worst:.2e}, "
          f"to the base model {moved:.2e}")

    if merged_dir:
        merged = AutoModelForCausalLM.from_pretrained(merged_dir, dtype=torch.float32).eval()
        ids = torch.randint(0, base.config.vocab_size, (4, 40))
        with torch.inference_mode():
            difference = (merged(input_ids=ids).logits - model(input_ids=ids).logits).abs().max().item()
        print(f"merged model: largest difference of logits to base + adapter {difference:.2e}")
        worst = max(worst, difference)
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
