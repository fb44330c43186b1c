#!/usr/bin/env python3
"""Says what transformers makes of the models' directories in tests/data/tokenizer_config.

    pip install transformers==4.57.6    # once with this version,
    pip install transformers==5.24.0    # once with that one, each in an environment of its own
    python tests/goldens/make_tokenizer_config_vectors.py

Writes the ids under the version's name into expected.json there, without and with special tokens.
"""

import json
import pathlib

import transformers

CASES = pathlib.Path(__file__).resolve().parent.parent / "data" / "tokenizer_config"
TEXTS = ["hello world", " hello", "a<|user|>b<s>c</s>", "x<pad>y", ""]


def main():
    path = CASES / "expected.json"
    expected = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"texts": TEXTS, "cases": {}}
    for directory in sorted(p for p in CASES.iterdir() if p.is_dir()):
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        ids = [[tokenizer.encode(text, add_special_tokens=special) for text in TEXTS] for special in (False, True)]
        expected["cases"].setdefault(directory.name, {})[transformers.__version__] = {"plain": ids[0], "special": ids[1]}
    path.write_text(json.dumps(expected, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
