#!/usr/bin/env python3
"""Makes the tiny random models of tests/data/models and what transformers and PEFT compute with them.

    python tests/goldens/make_model_goldens.py tests/data/models [NAME...]

Makes the models named, or all. Each model is a Hugging Face directory with, beside it, `adapter/` (written by PEFT) and `expected.safetensors`:

    tokens [T], lengths [S]     sequences packed one after another
    logits [T, V]               of the base model, every row
    seeds, directions [P] u64, i32; epsilons [P] f32; noise in the metadata     the probes
    logprobs [P, Q]             of each next token (all rows but a sequence's last), adapter A, B + epsilon z written
                                out into PEFT's parameters

z is made here from the definition in docs/numerics.md (Philox4x32-10, Box-Muller), in double. transformers computes in
fp32, one sequence at a time. Needs torch, transformers, peft, safetensors, numpy; the versions used are in the metadata.
"""
import json
import os
import shutil
import sys

import numpy as np
import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel,
                          GPTJConfig, GPTJForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM,
                          MistralConfig, MistralForCausalLM, OPTConfig, OPTForCausalLM, Phi3Config, Phi3ForCausalLM,
                          Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

LENGTHS = [1, 31, 33, 5]


# ---- noise: docs/numerics.md ------------------------------------------------------------------------------
def philox(counter, key):
    """Philox4x32-10; counter [4, n] and key [2] of uint64 holding 32-bit words -> [4, n]."""
    x, (k0, k1), low = [c.copy() for c in counter], key, np.uint64(0xFFFFFFFF)
    k0, k1 = np.uint64(k0), np.uint64(k1)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * x[0], np.uint64(0xCD9E8D57) * x[2]
        x = [(p1 >> np.uint64(32)) ^ x[1] ^ k0, p1 & low, (p0 >> np.uint64(32)) ^ x[3] ^ k1, p0 & low]
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack(x)


def noise(kind, seed, tensor, count):
    per_block = 4 if kind == "gaussian" else 128
    blocks = np.arange((count + per_block - 1) // per_block, dtype=np.uint64)
    zero = np.zeros_like(blocks)
    words = philox([blocks, zero, zero + np.uint64(tensor), zero], (seed & 0xFFFFFFFF, seed >> 32))
    if kind == "gaussian":
        unit = (words.astype(np.float64) + 0.5) / 2.0**32
        z = []
        for a, b in ((unit[0], unit[1]), (unit[2], unit[3])):
            radius = np.sqrt(-2.0 * np.log(a))
            z += [radius * np.cos(2 * np.pi * b), radius * np.sin(2 * np.pi * b)]
        return np.stack(z, 1).reshape(-1)[:count]
    bits = (words[:, :, None] >> np.arange(32, dtype=np.uint64)) & np.uint64(1)  # [word, block, bit]
    return np.where(bits.transpose(1, 0, 2).reshape(-1)[:count] == 1, -1.0, 1.0)


# ---- models -----------------------------------------------------------------------------------------------
def randomize(model, generator):
    """Weights of a size at which every part of the model matters to the logits."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, generator=generator)
            if p.dim() == 2:
                p.copy_(r * (0.5 if "wte" in name or "embed" in name or "wpe" in name else p.shape[1] ** -0.5))
            elif name.endswith("bias"):
                p.copy_(0.2 * r)
            else:
                p.copy_(1.0 + 0.2 * r)


def run(model, sequences):
    """Logits of all rows, [T, V]."""
    with torch.no_grad():
        return torch.cat([model(input_ids=s[None]).logits[0].float() for s in sequences])


def next_token_logprobs(logits, sequences):
    out, row = [], 0
    for s in sequences:
        lp = torch.log_softmax(logits[row:row + len(s)].double(), -1)
        out += [lp[i, s[i + 1]].item() for i in range(len(s) - 1)]
        row += len(s)
    return out


def probes_of(seed):
    """(seed, direction, epsilon) of each: two small and two large steps, and none."""
    first, second = (0x9E3779B97F4A7C15 * (seed + 1)) % 2**64, seed
    return [(first, 0, 1e-2), (first, 0, -1e-2), (second, 1, 0.3), (second, 1, -0.3), (second, 1, 0.0)]


def start_value(shape, generator):
    """A factor of the adapter before any step."""
    return 0.3 * torch.randn(shape, generator=generator) * shape[1] ** -0.5


def perturbed(start, names, kind, seed, epsilon):
    """{name: start + epsilon z}, in double; `names` are the factors in the order of their tensor numbers."""
    return {n: start[n].double() + epsilon * torch.from_numpy(noise(kind, seed, tensor, start[n].numel())).reshape(
        start[n].shape) for tensor, n in enumerate(names)}


def save_expected(directory, kind, probes, sequences, logits, logprobs):
    save_file({
        "tokens": torch.cat(sequences).to(torch.int32),
        "lengths": torch.tensor(LENGTHS, dtype=torch.int32),
        "logits": logits,
        "seeds": torch.tensor([p[0] - 2**64 if p[0] >= 2**63 else p[0] for p in probes]).view(torch.uint64),
        "directions": torch.tensor([p[1] for p in probes], dtype=torch.int32),
        "epsilons": torch.tensor([p[2] for p in probes], dtype=torch.float32),
        "logprobs": torch.tensor(logprobs, dtype=torch.float32),
    }, os.path.join(directory, "expected.safetensors"), metadata={
        "noise": kind, "torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__})


def rewrite_config(path, change):
    with open(path) as f:
        config = json.load(f)
    change(config)
    with open(path, "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")


def old_form(config):
    """config.json as transformers 4 wrote it."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")


def old_neox(config):
    """The rotary part as transformers 4 wrote it for GPT-NeoX."""
    rope = config.pop("rope_parameters")
    config["rotary_emb_base"] = rope["rope_theta"]
    config["rotary_pct"] = rope["partial_rotary_factor"]
    config["torch_dtype"] = config.pop("dtype")


def old_form_of_gemma3(config):
    """The same for Gemma 3, whose layers with a window have a theta of their own."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope["full_attention"].pop("rope_theta")
    config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    config["rope_scaling"] = rope["full_attention"]
    config["sliding_window_pattern"] = config.pop("_sliding_window_pattern")
    del config["layer_types"]
    config["torch_dtype"] = config.pop("dtype")


def make(root, name, model, dtype, lora, kind, seed, change=None, shard="5GB"):
    if sys.argv[2:] and name not in sys.argv[2:]:
        return
    directory = os.path.join(root, name)
    shutil.rmtree(directory, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    randomize(model, generator)
    model.to(dtype).save_pretrained(directory, max_shard_size=shard)
    os.remove(os.path.join(directory, "generation_config.json"))
    if change:
        rewrite_config(os.path.join(directory, "config.json"), change)
    model = type(model).from_pretrained(directory, dtype=torch.float32).eval()

    vocabulary = model.config.vocab_size
    sequences = [torch.randint(0, vocabulary, (n,), generator=generator) for n in LENGTHS]
    logits = run(model, sequences)

    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **lora)).eval()
    factors = {n.replace(".default", ""): p for n, p in adapted.named_parameters() if "lora_" in n}
    with torch.no_grad():
        for p in factors.values():
            p.copy_(start_value(p.shape, generator))
    adapter = os.path.join(directory, "adapter")
    adapted.save_pretrained(adapter)
    os.remove(os.path.join(adapter, "README.md"))
    names = sorted(load_file(os.path.join(adapter, "adapter_model.safetensors")), key=str.encode)
    assert set(names) == set(factors), (names, sorted(factors))
    start = {n: factors[n].detach().clone() for n in names}

    logprobs = []
    for probe_seed, _, epsilon in probes_of(seed):
        with torch.no_grad():
            for n, value in perturbed(start, names, kind, probe_seed, epsilon).items():
                factors[n].copy_(value)
        logprobs.append(next_token_logprobs(run(adapted, sequences), sequences))
    save_expected(directory, kind, probes_of(seed), sequences, logits, logprobs)
    print(name, sum(p.numel() for p in model.parameters()), "parameters,", len(names), "trainables")


def main(root):
    assert philox([np.zeros(1, np.uint64)] * 4, (0, 0))[:, 0].tolist() == [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]
    os.makedirs(root, exist_ok=True)
    ids = dict(bos_token_id=0, eos_token_id=1)
    make(root, "llama", LlamaForCausalLM(LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=57, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, **ids)), torch.float32,
        dict(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"]), "gaussian", 1)
    make(root, "llama_grouped", LlamaForCausalLM(LlamaConfig(
        vocab_size=61, hidden_size=24, intermediate_size=31, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=10, attention_bias=True, mlp_bias=True, max_position_embeddings=128,
        rope_parameters=dict(rope_type="llama3", rope_theta=100.0, factor=8.0, low_freq_factor=1.0,
                             high_freq_factor=4.0, original_max_position_embeddings=64), **ids)), torch.bfloat16,
        dict(r=3, lora_alpha=5, target_modules="all-linear"), "gaussian", 2, change=old_form, shard="8KB")
    make(root, "llama_tied", LlamaForCausalLM(LlamaConfig(
        vocab_size=67, hidden_size=33, intermediate_size=17, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=1, head_dim=8, tie_word_embeddings=True, max_position_embeddings=64, **ids)), torch.float16,
        dict(r=2, lora_alpha=4, use_rslora=True, target_modules=["down_proj", "k_proj", "o_proj"],
             layers_to_transform=[1, 2]), "rademacher", 3)
    scalings = dict(
        linear=dict(factor=2.5), dynamic=dict(factor=4.0),
        yarn=dict(factor=4.0, original_max_position_embeddings=16),
        longrope=dict(short_factor=[1.0, 1.1, 1.3, 1.7], long_factor=[2.0, 3.0, 4.0, 5.0], factor=4.0,
                      original_max_position_embeddings=40))
    for seed, (kind, section) in enumerate(scalings.items(), 10):
        make(root, "llama_" + kind, LlamaForCausalLM(LlamaConfig(
            vocab_size=43, hidden_size=20, intermediate_size=19, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, max_position_embeddings=64,
            rope_parameters=dict(rope_type=kind, rope_theta=100.0, **section), **ids)), torch.bfloat16,
            dict(r=2, lora_alpha=4, target_modules=["q_proj", "k_proj"]), "gaussian", seed,
            change=old_form if kind == "yarn" else None)
    # Of the sequences one is longer than the original context.
    make(root, "llama_longrope_long", LlamaForCausalLM(LlamaConfig(
        vocab_size=43, hidden_size=20, intermediate_size=19, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=64,
        rope_parameters=dict(rope_type="longrope", rope_theta=100.0, short_factor=[1.0, 1.1, 1.3, 1.7],
                             long_factor=[2.0, 3.0, 4.0, 5.0], factor=4.0, original_max_position_embeddings=32), **ids)),
        torch.bfloat16, dict(r=2, lora_alpha=4, target_modules=["q_proj", "up_proj"]), "gaussian", 17)
    make(root, "gpt2", GPT2LMHeadModel(GPT2Config(
        vocab_size=89, n_embd=36, n_layer=2, n_head=3, n_positions=48, **ids)), torch.float32,
        dict(r=5, lora_alpha=10, target_modules=["c_attn"], fan_in_fan_out=True), "gaussian", 4)
    make(root, "gptj", GPTJForCausalLM(GPTJConfig(
        vocab_size=83, n_embd=32, n_layer=2, n_head=2, n_positions=48, rotary_dim=6, n_inner=71, **ids)), torch.float32,
        dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "fc_out"]), "gaussian", 5)
    make(root, "phi3", Phi3ForCausalLM(Phi3Config(
        vocab_size=61, hidden_size=24, intermediate_size=19, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, max_position_embeddings=64, original_max_position_embeddings=64, pad_token_id=0,
        rope_parameters=dict(rope_type="default", rope_theta=100.0, partial_rotary_factor=0.75), **ids)), torch.float32,
        dict(r=3, lora_alpha=6, target_modules="all-linear"), "gaussian", 20)
    make(root, "phi3_longrope", Phi3ForCausalLM(Phi3Config(
        vocab_size=53, hidden_size=20, intermediate_size=17, num_hidden_layers=2, num_attention_heads=2, sliding_window=6,
        max_position_embeddings=160, original_max_position_embeddings=40, pad_token_id=0, rope_parameters=dict(
            rope_type="longrope", rope_theta=100.0, short_factor=[1.0, 1.1, 1.3, 1.7, 2.0],
            long_factor=[2.0, 3.0, 4.0, 5.0, 6.0]), **ids)), torch.bfloat16,
        dict(r=2, lora_alpha=6, target_modules=["gate_up_proj"], layers_to_transform=[1]), "gaussian", 21)
    # Caps near the size of the scores and logits, a window of 5 tokens.
    make(root, "gemma2", Gemma2ForCausalLM(Gemma2Config(
        vocab_size=59, hidden_size=20, intermediate_size=23, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=6, query_pre_attn_scalar=11, sliding_window=5, attn_logit_softcapping=3.0,
        final_logit_softcapping=4.0, max_position_embeddings=64, **ids)), torch.float32,
        dict(r=3, lora_alpha=6, target_modules="all-linear"), "gaussian", 22)
    gemma3 = dict(vocab_size=47, hidden_size=20, intermediate_size=23, num_hidden_layers=3, num_attention_heads=2,
                  num_key_value_heads=1, head_dim=6, query_pre_attn_scalar=11, sliding_window=5,
                  max_position_embeddings=64, **ids)
    make(root, "gemma3", Gemma3ForCausalLM(Gemma3TextConfig(
        layer_types=["full_attention", "sliding_attention", "full_attention"], tie_word_embeddings=False,
        final_logit_softcapping=6.0, rope_parameters=dict(
            full_attention=dict(rope_type="default", rope_theta=1000.0),
            sliding_attention=dict(rope_type="default", rope_theta=10.0)), **gemma3)), torch.float32,
        dict(r=2, lora_alpha=6, target_modules="all-linear"), "gaussian", 23)
    make(root, "gemma3_old", Gemma3ForCausalLM(Gemma3TextConfig(
        sliding_window_pattern=2, rope_parameters=dict(
            full_attention=dict(rope_type="linear", rope_theta=1000.0, factor=4.0),
            sliding_attention=dict(rope_type="default", rope_theta=10.0)), **gemma3)), torch.bfloat16,
        dict(r=2, lora_alpha=6, target_modules=["v_proj", "gate_proj"], layers_to_transform=[1, 2]), "gaussian", 24,
        change=old_form_of_gemma3)
    # A window of 5 tokens, shorter than most sequences.
    make(root, "mistral", MistralForCausalLM(MistralConfig(
        vocab_size=71, hidden_size=24, intermediate_size=35, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=10, sliding_window=5, max_position_embeddings=64, **ids)), torch.float32,
        dict(r=3, lora_alpha=6, target_modules="all-linear"), "gaussian", 6)
    make(root, "qwen2", Qwen2ForCausalLM(Qwen2Config(
        vocab_size=67, hidden_size=30, intermediate_size=37, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, tie_word_embeddings=True, max_position_embeddings=64, **ids)), torch.float32,
        dict(r=2, lora_alpha=6, target_modules="all-linear"), "gaussian", 7)
    # A window of 7 tokens for the last layer alone.
    make(root, "qwen2_window", Qwen2ForCausalLM(Qwen2Config(
        vocab_size=59, hidden_size=20, intermediate_size=23, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, use_sliding_window=True, sliding_window=7, max_window_layers=1,
        max_position_embeddings=64, **ids)), torch.bfloat16,
        dict(r=2, lora_alpha=6, target_modules=["k_proj", "v_proj", "down_proj"]), "gaussian", 9)
    make(root, "qwen3", Qwen3ForCausalLM(Qwen3Config(
        vocab_size=73, hidden_size=26, intermediate_size=33, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=10, max_position_embeddings=64, **ids)), torch.float32,
        dict(r=3, lora_alpha=6, target_modules="all-linear"), "gaussian", 8)
    make(root, "gpt_neox", GPTNeoXForCausalLM(GPTNeoXConfig(
        vocab_size=77, hidden_size=30, intermediate_size=41, num_hidden_layers=2, num_attention_heads=3,
        max_position_embeddings=64, rope_parameters=dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=0.4),
        **ids)), torch.float32,
        dict(r=3, lora_alpha=6, target_modules="all-linear"), "gaussian", 10)
    make(root, "gpt_neox_sequential", GPTNeoXForCausalLM(GPTNeoXConfig(
        vocab_size=53, hidden_size=16, intermediate_size=19, num_hidden_layers=2, num_attention_heads=2,
        use_parallel_residual=False, attention_bias=False, hidden_act="gelu_new", max_position_embeddings=64, **ids)),
        torch.bfloat16, dict(r=2, lora_alpha=4, target_modules=["query_key_value"]), "rademacher", 11, change=old_neox)
    make(root, "opt", OPTForCausalLM(OPTConfig(
        vocab_size=79, hidden_size=28, ffn_dim=43, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=28,
        max_position_embeddings=40, **ids)), torch.float32,
        dict(r=3, lora_alpha=6, target_modules="all-linear"), "gaussian", 12)
    make(root, "opt_plain", OPTForCausalLM(OPTConfig(
        vocab_size=47, hidden_size=15, ffn_dim=17, num_hidden_layers=2, num_attention_heads=3, word_embed_proj_dim=15,
        enable_bias=False, tie_word_embeddings=False, activation_function="gelu", max_position_embeddings=33, **ids)),
        torch.float16, dict(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"]), "rademacher", 13)
    # OPT-350m: norms behind the sums, embeddings narrower than the layers. Then one of the two alone.
    small_opt = dict(vocab_size=43, ffn_dim=19, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=40, **ids)
    make(root, "opt_350m", OPTForCausalLM(OPTConfig(
        hidden_size=20, word_embed_proj_dim=12, do_layer_norm_before=False, **small_opt)), torch.float32,
        dict(r=3, lora_alpha=6, target_modules="all-linear"), "gaussian", 14)
    make(root, "opt_norm_after", OPTForCausalLM(OPTConfig(
        hidden_size=16, word_embed_proj_dim=16, do_layer_norm_before=False, **small_opt)), torch.bfloat16,
        dict(r=2, lora_alpha=4, target_modules=["fc1", "v_proj"], layers_to_transform=[1]), "gaussian", 15)
    make(root, "opt_projected", OPTForCausalLM(OPTConfig(
        hidden_size=12, word_embed_proj_dim=14, **small_opt)), torch.bfloat16,
        dict(r=2, lora_alpha=4, target_modules=["fc2", "project_out"]), "rademacher", 16)


if __name__ == "__main__":
    main(sys.argv[1])
