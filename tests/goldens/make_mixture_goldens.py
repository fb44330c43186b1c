#!/usr/bin/env python3
"""Makes the tiny random mixtures of experts of tests/data/models and what transformers computes with them.

    python tests/goldens/make_mixture_goldens.py tests/data/models [NAME...]

The files are those of make_model_goldens.py. transformers 5 keeps a layer's experts in two tensors of three axes, which PEFT
adapts in a form of its own, while the model's files hold a linear layer for each expert. The adapter here is that of the
files' modules, as PEFT wrote it for transformers 4. What it comes to is made exactly: W + scaling (B + epsilon z_B) (A + epsilon z_A),
summed in double, stands in transformers' own tensors. Where PEFT can convert the adapter, the script checks that PEFT's logits
are the same.

An expert that is chosen by a hair may differ between two computations that are both right. Each token is therefore drawn
until the router's logits of its row, at the edge between chosen and not, are MARGIN apart in every layer, in the base model and
under every probe. The logits have a spread of about 1; fp32 is wrong by some 1e-6 of it, bf16 by some 1e-2.
"""
import json
import os
import re
import shutil
import sys

import peft
import torch
from make_model_goldens import (LENGTHS, next_token_logprobs, perturbed, probes_of, randomize, rewrite_config, run,
                                save_expected, start_value)
from safetensors.torch import load_file, save_file
from transformers import MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

MARGIN = 0.05


def place(model, module):
    """transformers' own tensor of a module of the files, or the part of it."""
    parameters = dict(model.named_parameters())
    module = module.replace("block_sparse_moe", "mlp")
    expert = re.fullmatch(r"(.*\.experts)\.(\d+)\.(\w+)", module)
    if not expert:
        return parameters[module + ".weight"]
    experts, number, name = expert[1], int(expert[2]), expert[3]
    if name in ("w2", "down_proj"):
        return parameters[experts + ".down_proj"][number]
    both = parameters[experts + ".gate_up_proj"][number]
    return both[:both.shape[0] // 2] if name in ("w1", "gate_proj") else both[both.shape[0] // 2:]


class Settings:
    """The base model and every probe: what to put into the model's tensors."""

    def __init__(self, model, directory, r, alpha, targets, kind, seed, generator):
        weights = {}
        for file in sorted(os.listdir(directory)):
            if file.endswith(".safetensors"):
                weights.update(load_file(os.path.join(directory, file)))
        linear = sorted(n.removesuffix(".weight") for n, w in weights.items()
                        if w.dim() == 2 and "embed_tokens" not in n and "lm_head" not in n)
        self.model, self.scaling = model, alpha / r
        self.modules = [m for m in linear if targets == "all-linear" or m.rsplit(".", 1)[-1] in targets]
        self.base = {m: weights[m + ".weight"].double() for m in self.modules}
        shapes = {}
        for m in self.modules:
            out, inner = self.base[m].shape
            shapes[f"base_model.model.{m}.lora_A.weight"] = (r, inner)
            shapes[f"base_model.model.{m}.lora_B.weight"] = (out, r)
        self.names = sorted(shapes, key=str.encode)
        self.start = {n: start_value(shapes[n], generator) for n in self.names}
        self.probes = probes_of(seed)
        # One model for each setting: the base, then the probes.
        self.values = [self.base] + [self.merged(kind, s, epsilon) for s, _, epsilon in self.probes]

    def merged(self, kind, seed, epsilon):
        factors = perturbed(self.start, self.names, kind, seed, epsilon)
        return {m: self.base[m] + self.scaling * factors[f"base_model.model.{m}.lora_B.weight"] @
                factors[f"base_model.model.{m}.lora_A.weight"] for m in self.modules}

    def put(self, values):
        with torch.no_grad():
            for module, value in values.items():
                place(self.model, module).copy_(value.float())


def margin(model, sequence):
    """How far the last row's chosen experts are from the others, in the layer where that is least."""
    gaps, hooks = [], []
    for name, module in model.named_modules():
        if name.endswith("mlp.gate") and hasattr(module, "top_k"):
            def hook(gate, _, output):
                logits = output[0][-1].sort(descending=True).values
                gaps.append((logits[gate.top_k - 1] - logits[gate.top_k]).item())
            hooks.append(module.register_forward_hook(hook))
    run(model, [sequence])
    for hook in hooks:
        hook.remove()
    return min(gaps)


def draw(settings, models, generator):
    """Sequences whose rows all have the margin under every setting."""
    least, sequences = float("inf"), []
    for length in LENGTHS:
        sequence = torch.empty(0, dtype=torch.long)
        while len(sequence) < length:
            token = torch.randint(0, models[0].config.vocab_size, (1,), generator=generator)
            longer = torch.cat([sequence, token])
            gap = float("inf")
            for model in models:
                gap = min(gap, margin(model, longer))
                if gap < MARGIN:
                    break
            if gap >= MARGIN:
                sequence, least = longer, min(least, gap)
        sequences.append(sequence)
    return sequences, least


def make(root, name, model, dtype, r, alpha, targets, kind, seed, change=None, converts=True):
    if sys.argv[2:] and name not in sys.argv[2:]:
        return
    directory = os.path.join(root, name)
    shutil.rmtree(directory, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    randomize(model, generator)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 3:  # experts
                p.copy_(torch.randn(p.shape, generator=generator) * p.shape[2] ** -0.5)
    model.to(dtype).save_pretrained(directory)
    os.remove(os.path.join(directory, "generation_config.json"))
    if change:
        rewrite_config(os.path.join(directory, "config.json"), change)

    def load():
        return type(model).from_pretrained(directory, dtype=torch.float32, experts_implementation="eager").eval()

    settings = Settings(load(), directory, r, alpha, targets, kind, seed, generator)
    models = []
    for values in settings.values:
        settings.model = load()
        settings.put(values)
        models.append(settings.model)
    sequences, least = draw(settings, models, generator)

    adapter = os.path.join(directory, "adapter")
    os.makedirs(adapter)
    save_file(settings.start, os.path.join(adapter, "adapter_model.safetensors"), metadata={"format": "pt"})
    leaves = sorted({m.rsplit(".", 1)[-1] for m in settings.modules})
    with open(os.path.join(adapter, "adapter_config.json"), "w") as f:
        json.dump({"base_model_name_or_path": None, "bias": "none", "lora_alpha": alpha, "lora_dropout": 0.0,
                   "peft_type": "LORA", "r": r, "target_modules": leaves, "task_type": "CAUSAL_LM"}, f, indent=2)
    if converts:
        adapted = peft.PeftModel.from_pretrained(load(), adapter).eval()
        difference = (run(adapted, sequences) - run(models[-1], sequences)).abs().max().item()
        assert difference < 1e-4, difference
        print(name, "PEFT's logits differ by", difference)

    logprobs = [next_token_logprobs(run(m, sequences), sequences) for m in models[1:]]
    save_expected(directory, kind, settings.probes, sequences, run(models[0], sequences), logprobs)
    print(name, sum(p.numel() for p in models[0].parameters()), "parameters,", len(settings.names), "trainables, margin",
          least)


def old_form(config):
    """config.json as transformers 4 wrote it."""
    config["num_experts"] = config.pop("num_local_experts")
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["torch_dtype"] = config.pop("dtype")


def main(root):
    ids = dict(bos_token_id=0, eos_token_id=1, max_position_embeddings=64)
    make(root, "mixtral", MixtralForCausalLM(MixtralConfig(
        vocab_size=61, hidden_size=24, intermediate_size=17, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=5, num_experts_per_tok=2, **ids)), torch.float32,
        3, 6, "all-linear", "gaussian", 9)
    # Layer 1 is dense. The weights are a softmax over all experts.
    make(root, "qwen3_moe", Qwen3MoeForCausalLM(Qwen3MoeConfig(
        vocab_size=59, hidden_size=22, intermediate_size=19, moe_intermediate_size=9, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=10, num_experts=7, num_experts_per_tok=3,
        mlp_only_layers=[1], norm_topk_prob=False, **ids)), torch.float32,
        2, 6, "all-linear", "gaussian", 10, converts=False)
    # Layer 1 alone has experts: decoder_sparse_step.
    make(root, "qwen3_moe_renormalised", Qwen3MoeForCausalLM(Qwen3MoeConfig(
        vocab_size=53, hidden_size=20, intermediate_size=15, moe_intermediate_size=11, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=12, num_experts=4, num_experts_per_tok=2,
        decoder_sparse_step=2, norm_topk_prob=True, **ids)), torch.bfloat16,
        2, 4, ["down_proj"], "rademacher", 11, change=old_form, converts=False)


if __name__ == "__main__":
    main(sys.argv[1])
