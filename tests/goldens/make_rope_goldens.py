#!/usr/bin/env python3
"""Makes tests/data/rope/frequencies.json: what transformers makes of the rotary sections of config.json.

    python tests/goldens/make_rope_goldens.py tests/data/rope

Each case is what a config.json changes in that of tests/data/rope/base.json, with inv_freq and the attention factor.
"""
import json
import os
import sys

from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


def factors(first, step):
    return [round(first + step * i, 3) for i in range(16)]


def cases():
    yield dict(rope_theta=5e5, rope_scaling=dict(type="linear", factor=4.0))
    yield dict(rope_parameters=dict(rope_type="linear", rope_theta=100.0, factor=2.5))
    yield dict(rope_theta=1e4, rope_scaling=dict(type="dynamic", factor=4.0))
    yield dict(rope_theta=1e6, rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=256))
    yield dict(rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=8.0, beta_fast=16, beta_slow=2,
                                    original_max_position_embeddings=128, mscale=1.0, mscale_all_dim=0.5))
    yield dict(rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=1.0, truncate=False,
                                    original_max_position_embeddings=1024))
    yield dict(rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0, attention_factor=0.7,
                                    original_max_position_embeddings=256, truncate=False))
    yield dict(rope_parameters=dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0,
                                    high_freq_factor=4.0, original_max_position_embeddings=128))
    longrope = dict(short_factor=factors(1.0, 0.1), long_factor=factors(1.5, 0.5))
    yield dict(rope_theta=1e4, original_max_position_embeddings=256, rope_scaling=dict(type="longrope", **longrope))
    yield dict(rope_parameters=dict(rope_type="longrope", rope_theta=1e4, factor=4.0,
                                    original_max_position_embeddings=512, **longrope))
    yield dict(rope_parameters=dict(rope_type="longrope", rope_theta=1e4, attention_factor=1.25,
                                    original_max_position_embeddings=512, **longrope))


def main(folder):
    with open(os.path.join(folder, "base.json")) as f:
        base = json.load(f)
    made = []
    for change in cases():
        config = LlamaConfig(**json.loads(json.dumps({**base, **change})))
        config.standardize_rope_params()
        kind = config.rope_parameters["rope_type"]
        frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
        made.append(dict(change=change, inv_freq=[float(x) for x in frequencies], attention_factor=float(factor)))
    with open(os.path.join(folder, "frequencies.json"), "w") as f:
        json.dump(made, f)
        f.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
