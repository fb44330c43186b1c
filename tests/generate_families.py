"""`mezzo generate` against transformers' generate: greedy completions of 100 prompts, 64 tokens each, in fp32.

Three families: a trained LLaMA from a folder, and GPT-2 and Qwen3 with random weights and the same tokenizer. Prints how many
completions are the same, and where the first difference is how close the two likeliest tokens were.
Usage: generate_families.py MEZZO LLAMA-FOLDER PROMPTS.jsonl
"""
import argparse, json, subprocess, tempfile
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

ap = argparse.ArgumentParser()
ap.add_argument("mezzo")
ap.add_argument("llama")
ap.add_argument("prompts")
a = ap.parse_args()
NEW = 64
torch.manual_seed(0)
prompts = [json.loads(line)["prompt"] for line in open(a.prompts)]
tokenizer = AutoTokenizer.from_pretrained(a.llama)
size = len(tokenizer)


def random_model(model):
    folder = tempfile.mkdtemp()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


ids = dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
folders = {
    "llama": a.llama,
    "gpt2": random_model(GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=256, n_layer=4, n_head=8, n_positions=256, **ids))),
    "qwen3": random_model(Qwen3ForCausalLM(Qwen3Config(
        vocab_size=size, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4,
        head_dim=32, max_position_embeddings=256, **ids))),
}
start = [tokenizer.bos_token_id] if tokenizer("x").input_ids[0] == tokenizer.bos_token_id else []
for family, folder in folders.items():
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    output = subprocess.run([a.mezzo, "generate", folder, "--prompts", a.prompts, "--max-new-tokens", str(NEW), "--device", "cpu"],
                            capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    lines = [json.loads(line) for line in output.stdout.splitlines()]
    same, closest = 0, []
    for prompt, line in zip(prompts, lines):
        context = start + tokenizer(prompt, add_special_tokens=False).input_ids
        with torch.no_grad():
            whole = model.generate(torch.tensor([context]), max_new_tokens=NEW, do_sample=False, pad_token_id=0,
                                   attention_mask=torch.ones(1, len(context), dtype=torch.long))[0].tolist()
        new = whole[len(context):]
        if new and new[-1] == tokenizer.eos_token_id:
            new = new[:-1]
        want = tokenizer.decode(context + new)[len(tokenizer.decode(context)):]
        if line["completion"].strip() == want.strip() and line["tokens"] == len(new):
            same += 1
        else:
            with torch.no_grad():
                logits = model(torch.tensor([context + new])).logits[0, len(context) - 1:-1]
            top = logits.topk(2).values
            closest.append(float((top[:, 0] - top[:, 1]).min()))
            print("  differs:", repr(want[:60]), repr(line["completion"][:60]), "closest two logits", closest[-1])
    print(f"{family}: {same} of {len(prompts)} the same", flush=True)
