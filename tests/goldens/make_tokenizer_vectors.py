#!/usr/bin/env python3
"""Makes tests/data/tokenizers: small byte-level BPE tokenizers and what Hugging Face tokenizers makes of nasty texts.

    pip install tokenizers==0.23.3
    python tests/goldens/make_tokenizer_vectors.py

Writes texts.json (the texts), NAME.json (a tokenizer.json) and NAME.ids.json for each tokenizer, splits.json (patterns
and the pieces they make) and patterns.json (more of the patterns' language). The same run on any machine writes the same files.
"""

import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

OUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "tokenizers"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

NASTY = [
    "", " ", "  ", "a", " a", "a ", "\n", "\r\n", "\t", "\x00", "\x00\x01\x02\x1b[0m\x7f\x80\x9f",
    "Hello, world! It's a test; they'll've we'd I'm you're don't.",
    "IT'S HE'LL WE'VE I'M YOU'RE THEY'D CAN'T 'Twas 'sup 'S'T'RE'VE'M'LL'D 'ſ 'Kelvin",
    "it’s they’re — “quoted” … ‘single’",
    "one  two   three    four     five          ten",
    "tabs\tand\t\ttabs\t \t mixed \t\t\n\n\n end",
    "line\nline\r\nline\rline\n\n\r\n\r\n  \n  indented\n\tx",
    "trailing spaces   ", "   leading spaces", "   ", "\n\n\n", " \n \n ", "a\n ", "a \n b", "x\u2028y\u2029z\x85w\x0b\x0cv",
    "nbsp\u00a0\u00a0x \u00a0 y\u3000\u3000z\u2003w\u202fv\u205fu\u1680t\u180es\ufeffr\u200bq",
    "0 12 345 6789 1234567890 3.14159 1,000,000 1e-5 0xFF v2.0.1 2024-11-23",
    "٠١٢٣٤٥٦٧٨٩ १२३४५ ๑๒๓ ⅷ Ⅻ ½ ² ³ ① ㊿ 𝟘𝟙𝟚 〇一二三",
    "日本語のテキスト、漢字とかなカナ。中文字符，没有空格！한국어 텍스트",
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ กำลังใจ น้ำ",
    "العَرَبِيَّة مُشَكَّلَة ١٢٣ لا إله", "עִבְרִית עם נִקּוּד שָׁלוֹם",
    "हिन्दी में क्षत्रिय ज्ञान श्री", "Tiếng Việt có dấu: ắ ằ ẳ ẵ ặ", "e\u0301 n\u0303 a\u0308\u0323 \u0301x " + "o" + "\u0300\u0301\u0302\u0303" * 6,
    "👩‍👩‍👧‍👦 👨🏽‍💻 🏳️‍🌈 🇩🇪🇫🇷 ❤️ ☺︎ 1️⃣ 🤷🏿‍♀️ 🫠🪿", "😀😀😀 😀 x😀y",
    "ǅ ß ẞ ﬁ ﬀ ſ K Å İ ı Ω ς Σ", "ABCdefGHI camelCaseWord SCREAMING_SNAKE snake_case kebab-case",
    "if (a[i] != b->c && !d) { return x ** 2 // 3; } /* note */ #include <a.h>\n    def f(x):\n\t\treturn x\n",
    "https://example.org/a?b=c&d=%20#e user@example.com C:\\dir\\file.txt",
    "!!! ??? ... ,,, --- === ### $$$ %%% ^^^ &&& *** ((( ))) [[[ ]]] {{{ }}}", "a'b'c 'a' ''s '''t '", "' s 's  'll'",
    "\ufffd \ufffe \uffff \U0010ffff \ue000 \U000f0000 \u0378 \U0003134a \U00031350 \U0002ebf0 \U00013460 \U00010d40",
    "\u200c\u200d\u2060\u00ad\u061c\u202a\u202e", "a\u0000b\u0000", "Zalgo: h\u0363\u0336\u0489e\u0334l\u0335l\u0336o\u0337",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "abababababababababab", " " * 33, "the the the the", "\u0300" * 31, "漢" * 31, "9" * 257,
    "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> <|endoftext|><|endoftext|>", "<|endoftext", "<|begin|>x<|end|>",
    "<mask>", "a <mask> b", "a<mask>b", "  <mask>  ", "\t<mask>\n", "word<mask>word", "_<mask>", "é<mask>", "<mask>\u0301", "\u200d<mask>",
    "<left>x <left> y\u3000\u00a0<left>", "<right> x <right>  \n<right>\u3000z", "<both>  <both>  <both>", "x <both> <mask> <left> <right> y",
    "<norm> <norm>><mask> <normal> <no", "字token字 字 x字y 🙂 🙂🙂 x🙂", "    x        y  z", "word words sword word. word", "a  <left>  <both>",
]

ALPHABETS = [
    "abcdeABC 's'tll", "ab \n\t\r", " \u00a0\u3000\u2028\n\r\tx1.", "0123456789٣५௫²½a ", "e\u0301\u0300\u0323 aé",
    "漢字かなカ한 a1。、", "👩👨\u200d🏽\ufe0f🇩🇪 a", "กำ้ا\u064bبש\u05c1 ", "'sStTmMdDlLrReEvV ſK", "!?.,;:-_()[]{}<>|/\\ a1\n",
    "\x00\x01\x07\x1b\x7f\x80\x85\xa0\xad a", "\u180e\ufeff\u200b\u2060 \u1680a1!", "ǅßﬁΣςσİı aB", "\U00031350\U0002ebf0\U00013460\U00010d40\u0378\ue000\U0010ffff a1 .",
    ["<mask>", "<left>", "<right>", "<both>", "<norm>", "字", "🙂", " ", "  ", "\u3000", "\n", "a", "_", ".", "word", "é", "\u0301"],
    ["<|endoftext|>", "<|begin|>", "<|end|>", "<|", "|>", " ", "\n", "a", "1"],
]


def texts():
    rng = random.Random(20240607)
    out = list(NASTY)
    for alphabet in ALPHABETS:
        for _ in range(16):
            out.append("".join(rng.choice(alphabet) for _ in range(rng.randint(1, 24))))
    for _ in range(80):
        pool = "".join(a for a in ALPHABETS if isinstance(a, str))
        out.append("".join(rng.choice(pool) for _ in range(rng.randint(1, 32))))
    for _ in range(40):  # anything that is a character
        out.append("".join(chr(c) for c in (rng.randrange(0x110000) for _ in range(12)) if not 0xD800 <= c < 0xE000))
    return out


def corpus():
    subjects = ["the film", "this story", "a quiet scene", "her performance", "the old director", "every frame", "it"]
    verbs = ["is", "was", "isn't", "feels", "doesn't feel", "they'll call", "we've found", "seems"]
    words = ["wonderful", "dreadful", "slow", "charming", "tedious", "1999", "12", "100%", "funny", "token", "word"]
    rng = random.Random(7)
    lines = [f"{rng.choice(subjects)} {rng.choice(verbs)} {rng.choice(words)}, and {rng.choice(words)}." for _ in range(400)]
    lines += [s.upper() for s in lines[:40]] + ["    indented\n\n\tcode  =  1\r\n" * 3] * 10
    return lines + [t for t in NASTY if len(t) > 20] * 3


def trained(pre_tokenizer, size, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=size, show_progress=False, special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def template(single, names, tokenizer):
    return processors.TemplateProcessing(single=single, special_tokens=[(n, tokenizer.token_to_id(n)) for n in names])


def with_string_merges(document):
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    return document


def gpt2():
    tokenizer = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), 480)
    tokenizer.post_processor = processors.ByteLevel()
    return json.loads(tokenizer.to_str())


def llama3():
    tokenizer = trained(split(LLAMA3), 520, ignore_merges=True)
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>"])
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template("<|begin|> $A", ["<|begin|>"], tokenizer)])
    document = json.loads(tokenizer.to_str())
    # Tokens that no merge makes: only ignore_merges finds them.
    vocabulary = document["model"]["vocab"]
    added = document["added_tokens"]
    for token in ["Ġfour", "Ġthree", "ĠĠĠĠĠĠĠĠĠ", "camel", "å­Ĺç¬¦"]:
        if token not in vocabulary:
            vocabulary[token] = len(vocabulary)
    for entry in added:
        if entry["content"] not in vocabulary:
            entry["id"] = len(vocabulary) + ["<|begin|>", "<|end|>"].index(entry["content"])
    special = document["post_processor"]["processors"][1]["special_tokens"]["<|begin|>"]
    special["ids"] = [len(vocabulary)]
    return with_string_merges(document)


def qwen2():
    tokenizer = trained(split(QWEN2), 440)
    tokenizer.add_special_tokens(["<|begin|>"])
    return json.loads(tokenizer.to_str())


def o200k():
    tokenizer = trained(split(O200K), 400)
    tokenizer.post_processor = template("<|endoftext|> $A", ["<|endoftext|>"], tokenizer)
    return json.loads(tokenizer.to_str())


def prefix_space():
    tokenizer = trained(pre_tokenizers.ByteLevel(add_prefix_space=True), 420)
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>"])
    tokenizer.post_processor = template("<|begin|> $A <|end|> <|end|>", ["<|begin|>", "<|end|>"], tokenizer)
    return with_string_merges(json.loads(tokenizer.to_str()))


def added_tokens():
    tokenizer = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), 360)
    tokenizer.add_special_tokens([
        AddedToken("<mask>", single_word=True, special=True), AddedToken("<left>", lstrip=True, special=True),
        AddedToken("<right>", rstrip=True, special=True), AddedToken("<both>", lstrip=True, rstrip=True, special=True)])
    tokenizer.add_tokens([
        AddedToken("<norm>", normalized=True), AddedToken("<norm>>", normalized=False), AddedToken("<no", normalized=True),
        AddedToken("字", normalized=False), AddedToken("字token", normalized=True), AddedToken("🙂", single_word=True),
        AddedToken("word", single_word=True, normalized=True), AddedToken("  ", normalized=False),
        AddedToken("    ", normalized=False), AddedToken("|>", normalized=True)])
    return json.loads(tokenizer.to_str())


def shuffled():
    """Merges whose ranks follow no training: later merges enable earlier ones."""
    rng = random.Random(3)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate(alphabet)}
    merges = []
    pool = ["a", "b", "c", "l", "e", "Ġ", "t", "'", "s", "Ì", "ģ"]
    while len(merges) < 260:
        pair = (rng.choice(pool), rng.choice(pool))
        if pair in merges or len(pair[0] + pair[1]) > 9:
            continue
        merges.append(pair)
        if pair[0] + pair[1] not in vocabulary:
            vocabulary[pair[0] + pair[1]] = len(vocabulary)
            pool.append(pair[0] + pair[1])
    rng.shuffle(merges)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return json.loads(tokenizer.to_str())


def split_cases():
    rng = random.Random(11)
    patterns = [
        ("Regex", r"\s+"), ("Regex", r"\S+"), ("Regex", r"\w+"), ("Regex", r"\W"), ("Regex", r"\d{2}"), ("Regex", r"\D+?1"),
        ("Regex", r"x*"), ("Regex", r"(?=a)"), ("Regex", r"a{1,2}+b?"), ("Regex", r"a{,2}"), ("Regex", r"[a-c\s]+?x|(?<=b)1"),
        ("Regex", r"[^\s\d]++."), ("Regex", r"(?i:ab|'LL)(?!x)"), ("Regex", r"(a|b)*1?"), ("Regex", r"[\p{P}\p{S}]+"),
        ("Regex", r"\p{Lu}\p{Ll}*|\P{L}"), ("Regex", r"[\x{4e00}-\x{9fff}\u3040-\u30ff]+"), ("Regex", r"{|\.|]|a{x"),
        ("Regex", r"(?:a+|ab)+?[-\]1]"), ("Regex", r"[a\-1]|\x41"), ("String", " "), ("String", "a"), ("String", "ab"), ("String", "."), ("String", "漢"),
    ]
    behaviors = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
    snake = dict(zip(behaviors, ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]))
    subjects = ["", "a", "xx axbab1 12 aa'll AB.{]a{x", "Ab 漢字かな ², 1234 \u00a0\u180e\u200d_é\u0301!"]
    subjects += ["".join(rng.choice("aabbx1 2.'lLA漢-") for _ in range(24)) for _ in range(3)]
    cases = []
    for kind, pattern in patterns:
        for behavior in behaviors:
            for invert in (False, True):
                step = pre_tokenizers.Split(Regex(pattern) if kind == "Regex" else pattern, snake[behavior], invert)
                pieces = [[piece for piece, _ in step.pre_tokenize_str(text)] for text in subjects]
                cases.append({"kind": kind, "pattern": pattern, "behavior": behavior, "invert": invert, "pieces": pieces})
    return {"texts": subjects, "cases": cases}


def pattern_cases():
    """More of the language, cut at its matches."""
    rng = random.Random(13)
    patterns = [
        r"^a|b$", r"\bword|\B,", r"\h+", r"(a|b)\1", r"\R", r"\X", r"\pL+", r"\p{Han}+|\p{^L}", r"(?i)the|IT", r"(?<n>[ab])\k<n>",
        r"[[:alpha:]]+", r"[[:digit:][:space:]]+", r"[a-z&&[^aeiou]]+", r"[\W\d]+", r"[]a]+", r"a**", r"a{2}?", r"(?:a|b)*+-|a", r"(?>a+|ab)-",
        r"(?i:mass|FI|stra\u00dfe)", r"(?i:\u00e9+)", r"(?i:\p{Lu}+)", r"(?<=a+)b", r"(?<!\w{1,3})\w", r"a(?#comment)b", r"(?m:a.b)", "(?x: a b # c\n)",
        r"(?<p>\((?:[^()]|\g<p>)*\))", r"(a)?(?(1)b|-)", r"(?~ab)", r"a\Kb", r"\Ga", r"\A.|.\z|.\Z", r"\N+", r"\O", r"(?y{w})\X", r"(*FAIL)|a", r"(?I:k)", r"\Qa.b\E",
        r"[^\p{L}\d]++|\p{Ll}+?", r"x?{2}", r"\x61|\u0062|\x{2d}", r"\cA|\t|\e",
    ]
    subjects = ["", "a", "word words, sword the The IT it", "aabbab -- aab- a.b (a(b)a) ((", "Mass masß ﬁt FIT straße STRASSE éÉ ſ k K", "1a\r\n2b\n\tc\u00a0d \u3000x_y",
                "漢字かな e\u0301\u0300 👩‍👩‍👧 🇩🇪🇫🇷 ², ٣"]
    subjects += ["".join(rng.choice("aabbx1 2.-(),\n") for _ in range(24)) for _ in range(2)]
    cases = []
    for pattern in patterns:
        step = pre_tokenizers.Split(Regex(pattern), "isolated")
        cases.append({"pattern": pattern, "pieces": [[piece for piece, _ in step.pre_tokenize_str(text)] for text in subjects]})
    return {"texts": subjects, "cases": cases}


def write(name, value, **how):
    (OUT / name).write_text(json.dumps(value, ensure_ascii=False, **how) + "\n", encoding="utf-8")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    write("texts.json", texts(), indent=0)
    write("splits.json", split_cases(), separators=(",", ":"))
    write("patterns.json", pattern_cases(), separators=(",", ":"))
    for make in (gpt2, llama3, qwen2, o200k, prefix_space, added_tokens, shuffled):
        document = make()
        name = make.__name__
        write(f"{name}.json", document, separators=(",", ":"))
        tokenizer = Tokenizer.from_file(str(OUT / f"{name}.json"))
        ids, special, decoded = [], [], {}
        for i, text in enumerate(texts()):
            ids.append(tokenizer.encode(text, add_special_tokens=False).ids)
            special.append(tokenizer.encode(text, add_special_tokens=True).ids)
            back = tokenizer.decode(ids[-1], skip_special_tokens=False)
            if back != text:
                decoded[str(i)] = back
        affixes = {tuple(s[:s.index(p[0])]) if p else None for p, s in zip(ids, special) if p and p[0] not in special[0]}
        assert len(affixes) <= 1 or name == "shuffled", affixes
        # The special ids are the same around every text; the first 40 show it.
        write(f"{name}.ids.json", {"ids": ids, "special": special[:40], "decoded": decoded}, separators=(",", ":"))
        print(f"{name}: {tokenizer.get_vocab_size()} tokens, {len(decoded)} of {len(ids)} texts do not come back")


if __name__ == "__main__":
    main()
