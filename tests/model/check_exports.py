#!/usr/bin/env python3
"""Checks a run's exports in transformers and PEFT: the same log-probabilities within 1e-4.

    python tests/model/check_exports.py build/src/cli/mezzo RUN examples.jsonl [--limit 20]

Exports the run's adapter and its merged model with `mezzo export`, then compares, token by token of each line's
completion, what four readers say: `mezzo score` with the adapter, PEFT with the exported adapter over the base model,
transformers with the merged model, and `mezzo score` with the merged model. All compute in fp32. A line of the examples
has `prompt` and `completion`. Needs torch, transformers, peft, tokenizers. Exits with 1 when they disagree.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-4  # of a log-probability, relative where it is beyond 1


def mezzo_scores(mezzo, model, examples, adapter=None):
    command = [mezzo, "score", model, examples] + (["--adapter", adapter] if adapter else [])
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line)["logprobs"] for line in done.stdout.splitlines()]


def torch_scores(model, tokenizer, lines):
    scores = []
    for line in lines:
        # As `mezzo score`: the two texts encoded apart, behind the start token that the post-processor puts first.
        plain = tokenizer.encode("", add_special_tokens=True).ids[:1]
        prompt = plain + tokenizer.encode(line["prompt"], add_special_tokens=False).ids
        completion = tokenizer.encode(line["completion"], add_special_tokens=False).ids
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].double()
        logprobs = torch.log_softmax(logits, -1)
        scores.append([logprobs[len(prompt) + i - 1, token].item() for i, token in enumerate(completion)])
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mezzo")
    parser.add_argument("run")
    parser.add_argument("examples")
    parser.add_argument("--limit", type=int, default=20, help="lines to compare")
    args = parser.parse_args()

    with open(args.examples) as f:
        lines = [json.loads(line) for line in f][:args.limit]
    with tempfile.TemporaryDirectory() as work:
        adapter, merged, examples = (os.path.join(work, n) for n in ("adapter", "merged", "examples.jsonl"))
        with open(examples, "w") as f:
            f.writelines(json.dumps({k: line[k] for k in ("prompt", "completion")}) + "\n" for line in lines)
        for kind, target in (("--adapter", adapter), ("--merged", merged)):
            subprocess.run([args.mezzo, "export", args.run, kind, target], check=True)
        with open(os.path.join(adapter, "adapter_config.json")) as f:
            base = json.load(f)["base_model_name_or_path"]
        tokenizer = Tokenizer.from_file(os.path.join(base, "tokenizer.json"))

        want = mezzo_scores(args.mezzo, base, examples, adapter)
        load = dict(dtype=torch.float32)
        readers = {
            "PEFT": torch_scores(
                PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, **load), adapter).eval(),
                tokenizer, lines),
            "transformers, merged": torch_scores(
                AutoModelForCausalLM.from_pretrained(merged, **load).eval(), tokenizer, lines),
            "mezzo, merged": mezzo_scores(args.mezzo, merged, examples),
        }
        plain = mezzo_scores(args.mezzo, base, examples)

    flat = [x for line in want for x in line]
    moved = max(abs(x - y) for x, y in zip(flat, (y for line in plain for y in line)))
    print(f"{len(flat)} tokens of {len(lines)} lines; the adapter moves a log-probability by up to {moved:.3g}")
    good = moved > 10 * TOLERANCE  # otherwise the comparison says nothing about the adapter
    for name, scores in readers.items():
        got = [y for line in scores for y in line]
        worst = max(abs(x - y) / max(1, abs(x)) for x, y in zip(flat, got)) if len(got) == len(flat) else float("inf")
        print(f"{name}: largest relative difference {worst:.3g}")
        good = good and worst <= TOLERANCE
    print("equal within" if good else "NOT equal within", TOLERANCE)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
