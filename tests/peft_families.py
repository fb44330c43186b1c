#!/usr/bin/env python3
"""Trains models with Mezzo and holds the adapters and merged models against PEFT and transformers.

    peft_families.py MEZZO [MODEL...]

Trains each MODEL, a folder with a tokenizer of the quickstart's records, for a few steps with LoRA on all linear layers, exports
the merged model, and hands both to peft_check.py. Without a MODEL it makes a tiny random one of each family of which PEFT reads the
adapter as it is, under the quickstart's tokenizer. Runs in the repository's root; needs what peft_check.py needs. Exits with 1 when
a family differs by more than peft_check.py's limit.
"""
import os
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "goldens"))
from make_model_goldens import randomize  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENIZER = "configs/quickstart/llama2m/tokenizer.json"


def families():
    shared = dict(vocab_size=8192, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=256, bos_token_id=0,
                  eos_token_id=1)
    gated = dict(hidden_size=32, intermediate_size=40, num_key_value_heads=1, **shared)
    gemma = dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=5, **gated)
    opt = dict(hidden_size=32, ffn_dim=40, **shared)
    return {
        "llama": transformers.LlamaConfig(**gated),
        "mistral": transformers.MistralConfig(sliding_window=5, **gated),
        "qwen2": transformers.Qwen2Config(**gated),
        "qwen3": transformers.Qwen3Config(head_dim=16, **gated),
        "phi3": transformers.Phi3Config(pad_token_id=0, sliding_window=5, original_max_position_embeddings=256, **gated),
        "gemma2": transformers.Gemma2Config(**gemma),
        "gemma3": transformers.Gemma3TextConfig(sliding_window_pattern=2, **gemma),
        "gpt_neox": transformers.GPTNeoXConfig(hidden_size=32, intermediate_size=40, **shared),
        "opt": transformers.OPTConfig(word_embed_proj_dim=32, **opt),
        "opt_350m": transformers.OPTConfig(word_embed_proj_dim=16, do_layer_norm_before=False, **opt),
    }


def make(config, folder):
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config)
    randomize(model, torch.Generator().manual_seed(1))
    model.save_pretrained(folder)
    shutil.copy(TOKENIZER, folder)


def check(mezzo, name, model):
    """Whether the trained adapter and the merged model are the same in PEFT and transformers."""
    with tempfile.TemporaryDirectory() as scratch:
        output = os.path.join(scratch, "run")
        merged = os.path.join(scratch, "merged")
        subprocess.run([mezzo, "train", "configs/quickstart.yaml", f"model.path={model}", f"train.output_dir={output}",
                        "train.max_steps=20", "train.batch_size=8", "data.validation=null", "lora.target_modules=all-linear",
                        "--quiet"], check=True)
        subprocess.run([mezzo, "export", output, "--merged", merged, "--quiet"], check=True)
        print(f"{name}:", flush=True)
        return subprocess.run([sys.executable, os.path.join(HERE, "peft_check.py"), mezzo, model,
                               os.path.join(output, "adapter"), merged]).returncode == 0


def main():
    mezzo, models = sys.argv[1], sys.argv[2:]
    if models:
        good = [check(mezzo, model, model) for model in models]
    else:
        good = []
        for name, config in families().items():
            with tempfile.TemporaryDirectory() as folder:
                make(config, folder)
                good.append(check(mezzo, name, folder))
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
