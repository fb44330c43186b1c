#!/usr/bin/env python3
"""Makes tests/data/pipelines: small tokenizers of every kind but plain byte-level BPE, and what Hugging Face makes of nasty texts.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3
    python tests/goldens/make_pipeline_vectors.py

Writes texts.json (the texts), NAME.json (a tokenizer.json) and NAME.ids.json for each tokenizer: ids, the texts that do not come back
as they were, and the ids of some texts with special tokens. tokenizers trains with an order of its own among equals: a later run writes other
tokenizers of the same kinds, and ids to go with them.
"""

import base64
import io
import json
import pathlib
import random
import tempfile
import unicodedata

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import make_tokenizer_vectors as byte_level

OUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "pipelines"
MARK = "▁"

EXTRA = [
    "▁", "▁▁", "a▁b", " ▁", "▁ a", "a ▁ b", "the▁film", "▁the film", "<0x41>", "<0x0A>\n<0xE2>", "<unk>", "<s>the film</s>", "</s>", "<s> the film",
    "the film</s> was", "<s><s> <s>", "x<pad>y <pad> z", "<user>the film<end>\n<assistant>\n  it was", "<user> <end>", " <user>  the", "[MASK] the [CLS]",
    "ＦＵＬＬ ｗｉｄｔｈ ｶﾞｷﾞ １２３", "ﬁlm ﬂow oﬀ ﬃ", "\u1100\u1161\u11a8 \u1112\u1161\u11ab 한글 각", "e\u0301e\u0327\u0301 \u0344 \u1e9b\u0323 \u212b \u2126",
    "q\u0307\u0323 q\u0323\u0307 d\u0307\u0323\u0331", "Å Å ﷺ ㎏ ½ ① ㍿", "İstanbul ISTANBUL ıi ΑΣ ẞ ǅ", "\u0301 \u0301a", "\x01the film", " \x01 a", "a\x01\x02b\x7fc\u200bd\ufeffe",
    "naïve café résumé NAÏVE CAFÉ", "unaffable unwanted running", "xyzzy qqq zzz", "the  film   was\u3000slow\u00a0and\u2003tedious", "\tthe film\n", "THE FILM WAS SLOW",
    "東京は the film 漢字", "a\ufffdb\u0378c\ue000d", "don't isn't 'm do not", "x" * 101, "x" * 100, "£€¥ ± × ÷", "®™©", "…‥．", "12345 1 2 3 99% 3.14",
]


def texts():
    pool = byte_level.texts()
    chosen = EXTRA + pool[:len(byte_level.NASTY)] + random.Random(5).sample(pool[len(byte_level.NASTY):], 60)
    # Characters that Unicode has since version 15: libraries differ in what they know of them.
    return [text for text in chosen if not any(c in "\U00031350\U0002ebf0\U00013460\U00010d40" or ord(c) in range(0x1000, 0x10ffff)
                                               and unicodedata.category(c) == "Cn" for c in text)]


def corpus():
    lines = [line for line in byte_level.corpus()[:440]]
    return lines + ["naïve café résumé", "unaffable unwanted running film", "東京 は 漢字 です"] * 8


def words(lines):
    return [MARK + line.replace(" ", MARK) for line in lines]


def alphabet(lines):
    return sorted({c for line in lines for c in line})


SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def bpe_with_bytes(size, lines, pre_tokenizer):
    """LLaMA's form: specials, bytes, then merges and characters."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizer
    trained.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    vocabulary = {}
    for token in SPECIAL + BYTES + sorted(model["vocab"], key=model["vocab"].get):
        vocabulary.setdefault(token, len(vocabulary))
    return models.BPE(vocab=vocabulary, merges=[tuple(merge) for merge in model["merges"]], unk_token="<unk>", fuse_unk=True, byte_fallback=True)


def llama_model():
    return bpe_with_bytes(150, words(corpus()), pre_tokenizers.Metaspace(prepend_scheme="never"))


def template(tokenizer, single, names):
    return processors.TemplateProcessing(single=single, special_tokens=[(n, tokenizer.token_to_id(n)) for n in names])


def llama_decoder(strips=True):
    steps = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if strips else []))


def llama():
    """LLaMA 1 and 2: a mark before every piece, and one for each space."""
    tokenizer = Tokenizer(llama_model())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    tokenizer.decoder = llama_decoder()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    tokenizer.post_processor = template(tokenizer, "<s> $A", ["<s>"])
    return tokenizer


def phi3():
    """Phi-3: LLaMA's, with added tokens that swallow the white space behind, and one that is normalized."""
    tokenizer = llama()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, rstrip=True) for token in ("<user>", "<end>", "<assistant>")])
    tokenizer.add_tokens([AddedToken("<pad>", normalized=True), AddedToken("it was", normalized=True)])
    return tokenizer


def llama_metaspace():
    """LLaMA as newer transformers write it: a mark where the text begins."""
    tokenizer = llama()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def mistral():
    tokenizer = llama()
    tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Sequence([decoders.Metaspace(prepend_scheme="always"), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def gemma():
    lines = [line.replace(" ", MARK) for line in corpus()]
    tokenizer = Tokenizer(bpe_with_bytes(150, lines, pre_tokenizers.Split(MARK, "merged_with_next")))
    tokenizer.normalizer = normalizers.Replace(" ", MARK)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = llama_decoder(strips=False)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    tokenizer.post_processor = template(tokenizer, "<s> $A", ["<s>"])
    return tokenizer


def byte_level_bpe(pre_tokenizer, normalizer, size):
    tokenizer = byte_level.trained(pre_tokenizer, size)
    tokenizer.normalizer = normalizer
    return tokenizer


def qwen():
    return byte_level_bpe(byte_level.split(byte_level.QWEN2), normalizers.NFC(), 340)


def neox():
    tokenizer = byte_level_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Sequence([normalizers.NFKC()]), 340)
    tokenizer.add_tokens([AddedToken("  ", normalized=True), AddedToken("    ", normalized=True), AddedToken("ﬁ", normalized=True)])
    tokenizer.post_processor = processors.ByteLevel()
    return tokenizer


def opt():
    tokenizer = byte_level_bpe(pre_tokenizers.ByteLevel(add_prefix_space=True), None, 320)
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>")))
    return tokenizer


def deepseek():
    """Steps before the bytes, and ones behind them."""
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation("merged_with_previous"),
             pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True), pre_tokenizers.Split("Ġ", "merged_with_next")]
    return byte_level_bpe(pre_tokenizers.Sequence(steps), normalizers.NFD(), 330)


def byte_level_normalizer():
    tokenizer = byte_level_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), None, 320)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.ByteLevel()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("Ġ", "merged_with_next")
    return tokenizer


RULES = {
    "Ａ": "A", "Ｆ": "F", "Ｕ": "U", "Ｌ": "L", "ﬁ": "fi", "ﬃ": "ffi", "e\u0301": "é", "a\u0308": "ä", "…": "...", "\u3000": " ", "\u00a0": " ", "\t": " ",
    "\n": " ", "\x01": "", "\u200b": "", "½": "1/2", "①": "1", "㎏": "kg", "\u1100\u1161": "가", "\u212b": "\u00c5", "ç": "c\u0327",
}


def characters_map():
    """A small precompiled map, made by SentencePiece."""
    with tempfile.TemporaryDirectory() as folder:
        rules = pathlib.Path(folder) / "rules.tsv"
        code = lambda text: " ".join(f"{ord(c):X}" for c in text)
        rules.write_text("".join(f"{code(source)}\t{code(target)}\n" for source, target in RULES.items()), encoding="utf-8")
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus()), model_writer=model, vocab_size=120, model_type="unigram", normalization_rule_tsv=str(rules),
            num_threads=1, minloglevel=2, hard_vocab_limit=False, character_coverage=0.98)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    return proto.normalizer_spec.precompiled_charsmap


def unigram(first, byte_fallback=False):
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trained.train_from_iterator(corpus(), trainers.UnigramTrainer(
        vocab_size=220, show_progress=False, special_tokens=first, unk_token="<unk>", initial_alphabet=list("abcé")))
    pieces = [(piece, round(score, 6)) for piece, score in json.loads(trained.to_str())["model"]["vocab"]]
    head, tail = pieces[:len(first)], pieces[len(first):]
    if byte_fallback:
        head += [(token, 0.0) for token in BYTES]
    return models.Unigram(head + tail, unk_id=first.index("<unk>"), byte_fallback=byte_fallback)


def t5():
    tokenizer = Tokenizer(unigram(["<pad>", "</s>", "<unk>"]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(characters_map())])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in ("<pad>", "</s>", "<unk>")] + ["<user>", "<end>"])
    tokenizer.post_processor = template(tokenizer, "$A </s>", ["</s>"])
    return tokenizer


def xlmr():
    tokenizer = Tokenizer(unigram(["<s>", "<pad>", "</s>", "<unk>"]))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Precompiled(characters_map()), normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), MARK)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in ("<s>", "<pad>", "</s>", "<unk>")])
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, normalized=True)])
    tokenizer.post_processor = template(tokenizer, "<s> $A </s>", ["<s>", "</s>"])
    return tokenizer


def unigram_bytes():
    tokenizer = Tokenizer(unigram(SPECIAL, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(), normalizers.Replace(Regex("^x"), "")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first"), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return tokenizer


def word_piece(normalizer, pre_tokenizer, prefix):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]", continuing_subword_prefix=prefix))
    trained.normalizer = normalizer
    trained.pre_tokenizer = pre_tokenizer
    trained.train_from_iterator(corpus(), trainers.WordPieceTrainer(
        vocab_size=260, show_progress=False, special_tokens=special, continuing_subword_prefix=prefix))
    vocabulary = json.loads(trained.to_str())["model"]["vocab"]
    order = special + sorted(token for token in vocabulary if token not in special)
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(order)}, unk_token="[UNK]", continuing_subword_prefix=prefix))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", order.index("[SEP]")), ("[CLS]", order.index("[CLS]")))
    return tokenizer


def bert():
    tokenizer = word_piece(normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), "##")
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return tokenizer


def bert_cased():
    tokenizer = word_piece(normalizers.BertNormalizer(lowercase=False, strip_accents=None, handle_chinese_chars=False, clean_text=False),
                           pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=False)]), "@@")
    tokenizer.decoder = decoders.WordPiece(prefix="@@", cleanup=False)
    return tokenizer


def stripped_accents():
    tokenizer = word_piece(normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
                           pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]), "")
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return tokenizer


def clip():
    """BPE whose tokens say that they end a word."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=260, show_progress=False, special_tokens=["<unk>"], end_of_word_suffix="</w>"))
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return tokenizer


def prefixed_bpe():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=260, show_progress=False, special_tokens=["<unk>"], continuing_subword_prefix="##"))
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return tokenizer


def write(name, value):
    (OUT / name).write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "texts.json").write_text(json.dumps(texts(), ensure_ascii=True, indent=0) + "\n", encoding="utf-8")
    for make in (llama, phi3, llama_metaspace, mistral, gemma, qwen, neox, opt, deepseek, byte_level_normalizer, t5, xlmr, unigram_bytes,
                 bert, bert_cased, stripped_accents, clip, prefixed_bpe):
        name = make.__name__
        write(f"{name}.json", json.loads(make().to_str()))
        tokenizer = Tokenizer.from_file(str(OUT / f"{name}.json"))
        ids, decoded = [], {}
        for i, text in enumerate(texts()):
            ids.append(tokenizer.encode(text, add_special_tokens=False).ids)
            back = tokenizer.decode(ids[-1], skip_special_tokens=False)
            if back != text:
                decoded[str(i)] = back
        special = [tokenizer.encode(text, add_special_tokens=True).ids for text in texts()[:12]]
        write(f"{name}.ids.json", {"ids": ids, "special": special, "decoded": decoded})
        print(f"{name}: {tokenizer.get_vocab_size()} tokens, {len(decoded)} of {len(ids)} texts do not come back")


if __name__ == "__main__":
    main()
