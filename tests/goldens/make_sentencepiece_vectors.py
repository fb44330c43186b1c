#!/usr/bin/env python3
"""Makes tests/data/sentencepiece: small models of SentencePiece and what transformers 4's slow tokenizers make of nasty texts with them.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3
    python tests/goldens/make_sentencepiece_vectors.py

Writes NAME/tokenizer.model, NAME/tokenizer_config.json and NAME.ids.json. The texts are those of tests/data/pipelines.
LlamaTokenizer's `legacy` behaviour and the other are written down in slow_ids() below: transformers 5 has neither any more.
"""

import io
import json
import pathlib
import re
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

import make_pipeline_vectors as pipelines

OUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "sentencepiece"
MARK = "▁"


def trained(model_type, vocab_size, rules=None, **options):
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        if rules:
            code = lambda text: " ".join(f"{ord(c):X}" for c in text)
            path = pathlib.Path(folder) / "rules.tsv"
            path.write_text("".join(f"{code(source)}\t{code(target)}\n" for source, target in rules.items()), encoding="utf-8")
            options["normalization_rule_tsv"] = str(path)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(pipelines.corpus()), model_writer=model, vocab_size=vocab_size, model_type=model_type, num_threads=1,
            minloglevel=2, hard_vocab_limit=False, character_coverage=0.98, **options)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    proto.trainer_spec.Clear()
    proto.trainer_spec.model_type = {"unigram": 1, "bpe": 2}[model_type]
    proto.trainer_spec.byte_fallback = options.get("byte_fallback", False)
    for name in ("bos_id", "eos_id", "pad_id", "unk_id"):
        if name in options:
            setattr(proto.trainer_spec, name, options[name])
    for name in ("bos_piece", "eos_piece"):
        if name in options:
            setattr(proto.trainer_spec, name, options[name])
    return proto


def processor(proto, **normalizer):
    copy = sentencepiece_model_pb2.ModelProto()
    copy.CopyFrom(proto)
    for name, value in normalizer.items():
        setattr(copy.normalizer_spec, name, value)
    return sentencepiece.SentencePieceProcessor(model_proto=copy.SerializeToString())


def slow_ids(proto, added, special, legacy, text):
    """LlamaTokenizer of transformers 4: tokenize(), then ids."""
    whole = processor(proto)
    plain = processor(proto, add_dummy_prefix=False)
    unknown = whole.id_to_piece(whole.unk_id())
    anchor = len(plain.encode(unknown))

    def ids_of(piece):
        if legacy:
            return whole.encode(piece)
        if not piece.startswith((MARK, " ")):
            return plain.encode(piece)
        ids = plain.encode(unknown + piece)
        return ids[anchor:] if len(ids) >= anchor else ids

    if not text:
        return []
    if not legacy:
        text = MARK + text.replace(MARK, " ")
    ids = []
    for piece in re.split("(" + "|".join(map(re.escape, sorted(added, key=len, reverse=True))) + ")", text):
        if piece:
            ids += [added[piece]] if piece in added else ids_of(piece)
    if not legacy and len(ids) > 1 and whole.id_to_piece(ids[0]) == MARK and ids[1] in special:
        ids = ids[1:]
    return ids


BPE = dict(model_type="bpe", vocab_size=420, byte_fallback=True, split_digits=True, allow_whitespace_only_pieces=True,
           remove_extra_whitespaces=False, normalization_rule_name="identity")
MODELS = {
    "llama": (BPE, {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True, "add_eos_token": False}),
    "llama_new": (BPE, {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_eos_token": True, "pad_token": "<pad>"}),
    "gemma": (dict(BPE, add_dummy_prefix=False, bos_id=2, eos_id=1, pad_id=0, unk_id=3, bos_piece="<bos>", eos_piece="<eos>"),
              {"tokenizer_class": "GemmaTokenizer"}),
    "unigram": (dict(model_type="unigram", vocab_size=200, rules=pipelines.RULES, remove_extra_whitespaces=True), {}),
    "unigram_new": (dict(model_type="unigram", vocab_size=460, byte_fallback=True, rules=pipelines.RULES, remove_extra_whitespaces=True),
                    {"legacy": False}),
}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for name, (options, config) in MODELS.items():
        proto = trained(**options)
        folder = OUT / name
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
        (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n", encoding="utf-8")
        whole = processor(proto)
        special = {whole.id_to_piece(i): i for i in (whole.bos_id(), whole.eos_id(), whole.unk_id())}
        if "pad_token" in config:
            special[config["pad_token"]] = whole.get_piece_size()
        legacy = config.get("legacy", True)
        ids = [slow_ids(proto, special, special.values(), legacy, text) for text in pipelines.texts()]
        decoded = {}
        for i, (text, row) in enumerate(zip(pipelines.texts(), ids)):
            if special.keys() & set(re.findall("<[a-z/]+>", text)) or whole.unk_id() in row:
                continue
            decoded[str(i)] = whole.decode(row)
        prefix = [whole.bos_id()] if config.get("add_bos_token", True) else []
        suffix = [whole.eos_id()] if config.get("add_eos_token") else []
        (OUT / f"{name}.ids.json").write_text(json.dumps(
            {"prefix": prefix, "suffix": suffix, "ids": ids, "decoded": decoded}, ensure_ascii=True, separators=(",", ":")) + "\n")
        print(f"{name}: {whole.get_piece_size()} pieces")


if __name__ == "__main__":
    main()
